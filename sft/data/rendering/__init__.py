"""From conversations to the text of a chat template, with the span of each answer that is learned.

chat_template   the tokenizer and its template, as a function from messages to text
bounded_template   a compiled template, stopped if it would never end
  template_charges   inserts charges into its tree
  template_budget    what is charged, and how much a template may use
  quick_lookups      faster lookups of keys
turn_form       the form of a message that the template reads
adaptation      rewrites what the template has no form for
turn_bounds     where an answer begins and ends
answer_spans    where an answer is in the text, the slow way
thought_marks   what stands around a thought
call_forms      how calls are written
landmarks       the fast way, by a probe of the same shape
  template_words     which words of a conversation the template looks at
renderer        all of it, and answers that a template shows in full only while they are the last
inference       which tokens stop the model
saved_template  the template of an exported model
"""
