"""How models refuse, and how they talk of themselves, in the languages that instruction data mostly has.

Texts are in lower case, with straight apostrophes and single spaces. A refusal is of the one who answers ("I cannot
help with that"); "you cannot divide by zero" and "I can't wait" are none.
"""

import re

_REFUSALS = (
    # English
    r"\bi(?:'m| am) (?:really |very |so |truly )?(?:sorry|afraid)\b[^.!?]{0,40}\b(?:can't|cannot|can not|unable"
    r"|not able|won't|don't have|must decline)",
    r"\bi (?:must|have to|will have to|need to) (?:respectfully |politely )?(?:decline|refuse)\b",
    r"\bi (?:can't|cannot|can not|won't|will not|am unable to|am not able to|'m not able to)"
    r" (?:assist|help you with|help with|comply|fulfill|fulfil|provide|engage|generate|create|answer|do that"
    r"|discuss)\b",
    r"\bi'm (?:unable|not able) to (?:assist|help|comply|fulfill|fulfil|provide|engage|generate|create|answer)\b",
    r"\bas requested, i (?:can't|cannot)\b",
    # German
    r"\b(?:tut mir|es tut mir) (?:sehr )?leid,? [^.!?]{0,40}\b(?:kann|darf|werde|bin)\b[^.!?]{0,60}\bnicht\b",
    r"\bich kann (?:dir|ihnen|ihnen dabei|dabei|diese|dieser|ihre)\b[^.!?]{0,60}\bnicht (?:helfen|behilflich"
    r"|beantworten|erfüllen|weiterhelfen)",
    # French
    r"\b(?:je suis |)désolée?,? [^.!?]{0,40}\bje ne (?:peux|puis) pas\b",
    r"\bje ne (?:peux|puis) pas (?:vous |t')?(?:aider|répondre|fournir|satisfaire)",
    # Spanish, Portuguese, Italian
    r"\blo siento,? [^.!?]{0,40}\bno puedo\b",
    r"\bno puedo (?:ayudarte|ayudarle|ayudar con|cumplir|responder|proporcionar)",
    r"\b(?:desculpe|sinto muito|lamento),? [^.!?]{0,40}\bnão posso\b",
    r"\bnão posso (?:ajudar|ajudá|responder|fornecer|atender)",
    r"\bmi dispiace,? [^.!?]{0,40}\bnon posso\b",
    r"\bnon posso (?:aiutarti|aiutarla|rispondere|fornire|soddisfare)",
    # Russian, Chinese, Japanese, Korean, Arabic
    r"(?:извините|простите|к сожалению),? [^.!?]{0,40}\bя не (?:могу|в состоянии)\b",
    r"\bя не могу (?:помочь|ответить|выполнить|предоставить)",
    r"(?:抱歉|对不起|對不起)[,，]?[^。.!?！？]{0,20}(?:无法|無法|不能)",
    r"我(?:无法|無法|不能)(?:回答|提供|帮助|幫助|满足|滿足|协助|協助)",
    r"申し訳(?:ありません|ございません)が?[^。]{0,40}(?:できません|いたしかねます|お答えできない)",
    r"죄송(?:합니다|하지만)[^.]{0,40}(?:수 없습니다|어렵습니다)",
    r"(?:عذر[اً]+|آسف|أعتذر)[^.؟!]{0,40}لا (?:أستطيع|يمكنني)",
)

_META_TALK = (
    r"\bas an? (?:ai|artificial intelligence|large language model|language model|llm)\b(?: (?:language )?(?:model|"
    r"assistant))?,? i\b",
    r"\bi(?:'m| am) (?:just |only |merely )?an? (?:ai|artificial intelligence|large language model|language model)\b",
    r"\bmy (?:knowledge cutoff|training data (?:only )?(?:goes|ends|includes)|last (?:knowledge )?update)\b",
    r"\bi (?:don't|do not) have (?:personal (?:opinions|experiences|beliefs|feelings)|access to real-?time)",
    r"\b(?:chatgpt|trained by openai|developed by openai|created by anthropic)\b,? (?:i|and i)\b",
    r"\bich bin (?:nur )?ein(?:e)? (?:ki|künstliche intelligenz|sprachmodell|ki-sprachmodell|ki-assistent)\b",
    r"\bals (?:ein(?:e)? )?(?:ki|künstliche intelligenz|ki-sprachmodell|sprachmodell|ki-modell)\b,? "
    r"(?:kann|habe|bin) ich\b",
    r"\ben tant qu(?:e |')(?:une? )?(?:ia|intelligence artificielle|modèle de langage|assistant ia)\b,? je\b",
    r"\bcomo (?:un |una |um |uma )?(?:ia|inteligencia artificial|inteligência artificial|modelo de "
    r"(?:lenguaje|linguagem))\b",
    r"\bin quanto (?:ia|intelligenza artificiale|modello linguistico)\b",
    r"\bкак (?:ии|искусственный интеллект|языковая модель|ии-модель)\b,? (?:я|у меня)\b",
    r"作为(?:一个|一名)?(?:ai|人工智能|大型语言模型|语言模型)[^。]{0,10}我",
    r"我(?:只是|是)(?:一个|一名)?(?:ai|人工智能|大型语言模型|语言模型)",
    r"(?:ai|人工知能|言語モデル)として[^。]{0,10}(?:私|お答え)",
    r"(?:ai|인공지능|언어 모델)(?:로서|으로서)",
    r"(?:بصفتي|كوني|أنا) (?:مجرد )?(?:نموذج|ذكاء اصطناعي|نموذجًا)",
)

_REFUSAL_MARKS = (
    *("can't", "cannot", "can not", "won't", "will not", "unable", "not able", "don't have", "decline", "refuse"),
    *("nicht", " pas", "no puedo", "não posso", "non posso", "я не ", "法", "不能", "申し訳", "죄송", "لا "),
)
"""Each refusal has one of these, and looking for them takes a tenth of the time."""

_META_MARKS = (
    *(" ai", "artificial intelligence", "language model", " llm", "my knowledge", "my training", "my last "),
    *("have personal ", "have access to real", "chatgpt", "openai", "anthropic", " ki", "künstliche intelligenz"),
    *("sprachmodell", " ia", "'ia", "intelligence artificielle", "modèle de langage", "inteligencia artificial"),
    *("inteligência artificial", "modelo de ", "intelligenza artificiale", "modello linguistico", " ии"),
    *("искусственный интеллект", "языковая модель", "作为", "我", "として", "로서", "으로서", "نموذج", "ذكاء"),
)
"""The same of talk of the model itself."""

REFUSALS = re.compile("|".join(f"(?:{pattern})" for pattern in _REFUSALS))
META_TALK = re.compile("|".join(f"(?:{pattern})" for pattern in _META_TALK))


def may_refuse(text: str) -> bool:
    """Whether `REFUSALS` may be found in it; False: it is not."""
    return any(mark in text for mark in _REFUSAL_MARKS)


def may_talk(text: str) -> bool:
    """Whether `META_TALK` may be found in it; False: it is not."""
    return any(mark in text for mark in _META_MARKS)
