"""The page on which people approve records. What that approves follows in `sft.approval`.

records of a set ─session, given_out─▶ the next one ─shown_record─▶ the page ─server, session─▶ Decision
template_view    a record as the chat template of a config renders it
exchange    the same records and decisions in the forms of Label Studio and Argilla
"""
