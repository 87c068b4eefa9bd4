"""The formats of records, each in a module of its own; `sft.data.formats.formatting` is the entry point.

    columns        the columns of each format, and other names that they are known by
    detection      auto → an explicit format and its columns, or the line to write in the config
    task_files     a task with many instances → one record an instance
    single_turn    instruction, prompt_completion, and the instances of task files
    messages       OpenAI's messages           ┐
    sharegpt       ShareGPT's conversations    ┴─ turns (order of roles, train marks), tool_calls
    token_rows     rows of token ids
    text_fields    the rules for a text; a RecordError with the reason where it breaks them

A reader takes the fields of a record and the source's columns. It never changes a text: it neither strips nor corrects
it.
"""
