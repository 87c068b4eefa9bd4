"""A zoo of instruction tasks with exact answers, from few words, that a small model learns within minutes.

    words ──▶ clusters (a file each) ──Case──▶ task: wording ──Record──▶ records: training, tests ──▶ JSON lines

Twelve clusters share their words and their skills: what one sorts, another counts, and a third reverses. So a model
could do the tasks of a cluster that it never saw, from what it learned in others. Everything is drawn by name and seed.
"""
