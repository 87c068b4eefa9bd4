"""A client of servers that speak OpenAI's chat completions: vLLM, SGLang, `transformers serve`, hosted ones.

    Endpoint, ChatRequest ──EndpointClient.chat_all──▶ ChatReply, or the reason why there is none
                                └─ PaidReplies: what was answered before is read, and not asked again
    Endpoint, CompletionRequest ──EndpointClient.complete_all──▶ Completion: the same by token ids, of vLLM

Nothing here knows what the answers are for: models that are measured, judges, teachers.
"""
