"""From conversations to the text of a chat template, with the place of each answer that is learned.

chat_template   the tokenizer and its template, as a function from messages to text
bounded_template   a compiled template, stopped where it would never end
  template_charges   where its tree is made to charge what it does
  template_budget    what is charged, and how much there is
  quick_lookups      how it looks things up
turn_form       how the template wants a message
adaptation      what the template has no form for, said otherwise
turn_bounds     where an answer begins and ends
answer_spans    where an answer stands in the text, the long way
landmarks       the short way, by a probe of the same shape
  template_words     what of a conversation's words the template looks at
renderer        all of it, and answers that a template shows in full only while they are the last
inference       at which tokens the model stops
saved_template  the template of an exported model
"""
