"""From questions to answers: a model writes, or chooses the most probable of the options.

    questions ──rounds──▶ batches ──▶ the model, one share a rank ──▶ Answer ──▶ a line in a file

The model is that of a training engine, split over the ranks or not, or a whole one that is loaded for it. All take the
same prompts and compute with the same functions.
"""
