"""From conversations to the text of a chat template, with the place of each answer that is learned.

chat_template   the tokenizer and its template, as a function from messages to text
bounded_template   a compiled template, stopped where it would never end
  template_charges   where its tree is made to charge what it does
  template_budget    what is charged, and how much there is
adaptation      what the template has no form for, said otherwise
answer_spans    where an answer stands in the text
renderer        all of it, and answers that a template shows in full only while they are the last
"""
