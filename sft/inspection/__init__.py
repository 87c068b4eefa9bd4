"""Shows and proves what is learned: the mask of stored examples, read back from the ids that training will see.

    TokenStore ─ selection ─▶ example ids ─ token_view ─▶ ShownToken ─▶ terminal · page
    TokenStore, rendered_rows ─ mask_check, source_check ─▶ CheckResult

Nothing here decides what is learned. Invariant: it shows exactly what is in the store, and every character of the data
as text, whatever it would do to a terminal or to a browser.
"""
