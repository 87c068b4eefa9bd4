"""The verbs of the command `sft` that are modules: arguments, and what they do.

At their top the modules import nothing slow. What a verb needs is imported when it is called.
"""
