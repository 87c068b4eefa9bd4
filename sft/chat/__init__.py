"""Talks to models: each gets the prompts that training saw, and goes on from its own replies.

    question, Setting ──Speaker: its earlier turns──▶ messages ──ChatPrompts──▶ Prompt ──writer──▶ Reply, piece by piece
                                                                                └─ a loaded model, or a served one

A turn of a chat is a record in the messages format. So it is read, tagged and rendered as one of the training data, and
what cannot be such a record cannot be said.
"""
