"""Makes data with a strong model: recipes ask a teacher, filters judge what comes, people approve it (`sft.review`).

    token store ─▶ wanted (task → number), seeds        recipes
                        └───────────┬──────────────────────┘
                     Course.begin ──ChatRequest──▶ RequestLog (paid once) ──▶ Teacher: served, or local
                          └─▶ Draft | Failed ──take: new?──▶ records.jsonl, dropped.jsonl, manifest.json

A script is one try at one record. What it asks depends on the config, the data and earlier scripts alone, so the same
command asks the same again, and the log answers what it has. The output is always written from the log.
"""
