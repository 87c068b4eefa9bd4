"""What is learned, shown on a zoo of small tasks and a small model that is trained from scratch.

base_text ──▶ base: the model of `model`, pretrained on statements; all arms start from it
zoo ──records──▶ data, arms: data and configs of each experiment ──▶ trainings: `sft`, a fork for each ──▶ its own files
answers of the models ──▶ findings: means, differences, intervals ──JSON──▶ tables and plots of docs/LEARNING.md
"""
