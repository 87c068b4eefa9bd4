"""People approve records: who said what of which, and what may be trained on.

    records.jsonl ─record_set─▶ Entry ─record_order, given_out─▶ the next record ─shown_record─▶ the page
    the page ─server, session─▶ Decision ─▶ decisions.jsonl ─decisions─▶ the word of each reviewer ─▶ approval
    template_view    a record as the chat template of a config renders it
    exchange    the same records and decisions in the forms of Label Studio and Argilla

A decision names a record by its content (`sft.draft.record_id`): what is changed later is another record, and nobody
has approved it. Nothing here knows how a record was made.
"""
