"""Shows what the models of a run have learned: held-out losses by task, and the scores of their answers."""

from rich.console import Console

from sft.evaluation.answer_table import answer_tables
from sft.evaluation.run_records import RunRecords
from sft.evaluation.scores import main_metrics, metrics_beside_answers
from sft.evaluation.tables import score_table


def show_results(records: RunRecords, console: Console) -> None:
    """Print the tables."""
    metrics = (metrics_beside_answers if records.scores else main_metrics)(records.evaluations)
    for metric in metrics:
        console.print(score_table(records.evaluations, metric))
    for table in answer_tables(records.scores, records.clusters):
        console.print(table)
