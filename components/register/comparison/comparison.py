"""The comparison of a candidate with its references as data: what the report shows and what people read by program.

Every number is finite or null. Shares run from 0 to 1, changes of shares from -1 to 1.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from components.common import storage
from components.common.errors import InputError
from components.common.validation import first_problem
from components.register.evidence.results import FineTuning
from components.register.gate.verdict import Verdict

FORMAT_VERSION = 1


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class Estimate(_Data):
    """A number and its confidence interval."""

    value: float
    low: float
    high: float


class ReliabilityBin(_Data):
    """The answers that a model gave with a probability from ``low`` to ``high``.

    Attributes:
        confidence: Mean of these probabilities.
        accuracy: Share of these answers that are right.
    """

    low: float
    high: float
    questions: int
    confidence: float
    accuracy: Estimate


class Calibration(_Data):
    """How far the probabilities that a model gives its answers can be trusted.

    Attributes:
        ece: Expected calibration error: the mean distance of confidence and accuracy over the bins, by their sizes.
        brier: Mean squared distance of the probabilities of all options from what was right; 0 is perfect.
    """

    questions: int
    ece: float
    brier: float
    bins: list[ReliabilityBin]


class Confusion(_Data):
    """What was answered where what was right: ``counts[i][j]`` questions with answer ``i`` were given label ``j``."""

    labels: list[str]
    counts: list[list[int]]


class Score(_Data):
    """A model's result on one benchmark.

    Attributes:
        majority: Accuracy of always giving the most frequent answer.
        unparsable: Answers that could not be read; they count as wrong.
        flagged: Questions that the training data holds.
        clean_accuracy: Accuracy on the others; None where none is left.
        overlapping: Questions that share any run of words with the corpus.
        overlap_free_accuracy: Accuracy on the others; None where none is left.
    """

    questions: int
    correct: int
    accuracy: Estimate
    majority: float | None
    unparsable: int
    flagged: int
    clean_questions: int
    clean_accuracy: Estimate | None
    overlapping: int
    overlap_free_questions: int
    overlap_free_accuracy: Estimate | None
    calibration: Calibration | None
    confusion: Confusion | None


def _tuning(value: Any) -> Any:
    return FineTuning(**{**value, "tasks": tuple(value["tasks"])}) if isinstance(value, dict) else value


class ModelResults(_Data):
    """What was measured on one model.

    Attributes:
        role: ``base``, ``candidate`` or ``champion``.
        fine_tuning: How it was fine-tuned before; None as it is.
        articles: Held-out articles behind the perplexity.
    """

    role: str
    name: str
    model: str
    evaluation_uri: str
    fine_tuning: Annotated[FineTuning | None, BeforeValidator(_tuning)]
    setting: str
    articles: int
    tokens: int
    perplexity: Estimate | None
    bits_per_byte: Estimate | None
    benchmarks: dict[str, Score]


class PairedResult(_Data):
    """The difference of two models on the same questions.

    Attributes:
        reference: The reference's accuracy on them.
        candidate: The candidate's.
        change: The difference with its closed-form interval, by which the gate decides.
        bootstrap: The same by resampling questions.
        p_value: Exact McNemar test, two-sided.
        p_adjusted: After Holm's correction over the benchmarks that decide; None for others.
        detectable: The smallest difference that such a test finds in four of five cases.
    """

    questions: int
    reference: float
    candidate: float
    gained: int
    lost: int
    change: Estimate
    bootstrap: Estimate
    p_value: float
    p_adjusted: float | None
    detectable: float


class BenchmarkDifference(_Data):
    """A benchmark of a pair.

    Attributes:
        decides: Whether the policy judges by it.
        margin: How much it may lose.
        flagged: Questions left out, because the training data holds them.
        counted: The difference on the others; None where none is left.
        every: The difference on all questions.
    """

    decides: bool
    margin: float
    flagged: int
    counted: PairedResult | None
    every: PairedResult


class PairResults(_Data):
    """A candidate and one reference.

    Attributes:
        reference: ``base`` or ``champion``.
        decides: Whether the policy judges by this pair.
        obstacles: Why something of it cannot be compared, in words.
        benchmarks: Those that can.
        perplexity: Relative change of the held-out perplexity; None where it cannot be compared.
    """

    reference: str
    setting: str
    decides: bool
    obstacles: list[str]
    benchmarks: dict[str, BenchmarkDifference]
    perplexity: Estimate | None


class QuestionChange(_Data):
    """A question that the candidate and a reference answered differently well.

    Attributes:
        outcome: For each reference, whether the candidate ``won`` or ``lost`` it.
        predictions: What each role answered; empty for an answer that could not be read.
        text: The question; empty where the benchmarks were not at hand.
        coverage: Largest share of its words that one article of the corpus holds.
    """

    benchmark: str
    id: str
    hash: str
    text: str
    options: dict[str, str]
    answer: str
    predictions: dict[str, str]
    outcome: dict[str, Literal["won", "lost"]]
    coverage: float | None
    overlaps: bool
    flagged: bool


class BenchmarkContamination(_Data):
    """How many questions of a benchmark the training data holds.

    Attributes:
        looked_for: Questions long enough to be found.
        found: Questions with a run of words in any downloaded article, also in those that were left out.
        overlapping: Questions with a run of words in an article of the corpus ("any 13-gram").
        flagged: Questions of which the corpus holds the share of words that counts ("coverage").
        flagged_by_training: Questions that the benchmark's own training questions hold.
    """

    questions: int
    looked_for: int
    found: int
    overlapping: int
    flagged: int
    flagged_by_training: int


class ContaminationResults(_Data):
    """What is known of test questions in the corpus."""

    ngram: int
    coverage: float
    policy: list[str]
    benchmarks: dict[str, BenchmarkContamination]


class LicenceResults(_Data):
    """Licences of the articles that the candidate learned from, against the policy."""

    policy: str
    counts: dict[str, int]
    not_allowed: dict[str, int]


class Cell(_Data):
    """A number of the paper's table; published ones come without interval and questions."""

    value: float
    low: float | None = None
    high: float | None = None
    questions: int | None = None


class TableRow(_Data):
    """A row of the paper's table.

    Attributes:
        source: ``published`` by the authors, or ``measured`` in this run.
        citation: Where it was published.
        trained_on: For each column, the tasks that the model was fine-tuned on before.
    """

    model: str
    setting: str
    source: Literal["published", "measured"]
    citation: str = ""
    trained_on: dict[str, str] = Field(default_factory=dict)
    cells: dict[str, Cell | None]


class Table(_Data):
    """The paper's table: column keys with their titles, and rows."""

    columns: dict[str, str]
    rows: list[TableRow]


class Comparison(_Data):
    """Everything that a verdict rests on.

    Attributes:
        policy: The recipe's register section.
        confidence: Level of every interval.
        questions: Won and lost questions of the models as they are.
    """

    format_version: int = FORMAT_VERSION
    verdict: Verdict
    policy: dict[str, Any]
    confidence: float
    champion_version: str | None
    champion_obstacle: str
    models: list[ModelResults]
    pairs: list[PairResults]
    questions: list[QuestionChange]
    contamination: ContaminationResults | None
    licences: LicenceResults
    table: Table

    @classmethod
    def load(cls, uri: str) -> "Comparison":
        """Read a comparison from the store.

        Raises:
            InputError: It is none.
            StorageError: It cannot be read.
        """
        try:
            return cls.model_validate_json(storage.read(uri))
        except ValidationError as error:
            problem = first_problem(error, "file")
            raise InputError(f"{uri} is no comparison ({problem}); register again.") from error
