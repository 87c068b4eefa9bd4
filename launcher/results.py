"""Shows what models have learned: held-out losses by task, and the scores of their answers."""

from collections.abc import Sequence

from rich.console import Console

from sft.evaluation.answer_scores import Clusters, ModelScores
from sft.evaluation.answer_table import answer_tables
from sft.evaluation.scores import Evaluation, main_metrics, metrics_beside_answers
from sft.evaluation.tables import score_table


def show_results(
    evaluations: Sequence[Evaluation], scores: Sequence[ModelScores], clusters: Clusters, console: Console
) -> None:
    """Print the tables.

    Args:
        evaluations: of the models, in the order of training.
        scores: of their answers; none where nothing was asked.
        clusters: of tasks.
        console: where they are shown.
    """
    for metric in (metrics_beside_answers if scores else main_metrics)(evaluations):
        console.print(score_table(evaluations, metric))
    for table in answer_tables(scores, clusters):
        console.print(table)
