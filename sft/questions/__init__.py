"""What a model is asked, to see what it has learned: held-out prompts as the model gets them at inference.

    held-out records ──choose, read again──▶ conversations ──shots, tag, template──▶ Question ──▶ questions.jsonl

Questions are made once, by the process that plans, and published. So every model of a run, wherever it answers, gets
the same prompts to the token.
"""
