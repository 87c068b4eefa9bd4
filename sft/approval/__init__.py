"""Which records people have approved, and so which may be trained: from the files alone, without a page.

    records.jsonl ─record_set─▶ ids ─────┐
    decisions.jsonl ─decisions, opinions─┴─rule, approved─▶ Approval of each ─gate─▶ a file of approved records

A decision names a record by its content (`record_set.identity`): what is changed later is another record, which nobody
has approved. Nothing here knows how a record was made.
"""
