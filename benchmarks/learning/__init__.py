"""What is learned, shown on a zoo of small tasks and a small model that is trained from scratch.

zoo ──records──▶ arms: data and configs of each experiment ──▶ `sft train`
base_text ──▶ base: the model of `model`, pretrained on statements; all arms start from it
"""
