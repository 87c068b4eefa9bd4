"""The verb `chat`: talks to models in the terminal, side by side.

target      what is to be talked to: a run, or the folder of a model
opening     loads the models, each with its prompts
session     asks what the user types, and does what he commands
commands    the commands within a chat
keyboard    reads questions; Ctrl-C ends an answer, not the chat
showing     replies one after the other, or beside each other
columns     the rows of replies that stand beside each other
"""
