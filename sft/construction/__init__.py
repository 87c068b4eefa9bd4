"""Makes data with a strong model: recipes ask a teacher, filters judge what comes, people approve it (`sft.review`)."""
