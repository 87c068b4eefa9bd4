"""Data made by a strong model: recipes ask a teacher, filters judge what comes, and people approve it (`sft.review`)."""
