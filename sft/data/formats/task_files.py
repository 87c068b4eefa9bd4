"""A task with many instances → one record for each.

    {Definition, Instances: [a, b], …}    →    {Definition, Instances: [a], …}   …, instance 1
                                               {Definition, Instances: [b], …}   …, instance 2

Every record is the task with one of its instances, so the other fields of the task (its name, its categories) can name
it. A record without a list of instances stays as it is, and its reader says what is wrong.
"""

from collections.abc import Iterator

from sft.schema import Record


def expand_instances(record: Record, column: str) -> Iterator[Record]:
    """The records of the instances in the column, in order, with the index of their row."""
    instances = record.fields.get(column)
    if not isinstance(instances, list) or not instances:
        yield record
        return
    for number, instance in enumerate(instances, start=1):
        fields = {**record.fields, column: [instance]}
        yield Record(record.source, record.index, record.where._replace(instance=number), fields)
