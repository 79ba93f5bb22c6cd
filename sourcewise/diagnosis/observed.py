"""What a training of somebody's own modules showed of its wiring, where no network of the protocol is there to ask."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from sourcewise.diagnosis.measures.first_step import FirstStep, Weight
from sourcewise.diagnosis.measures.objective import Form
from sourcewise.diagnosis.measures.signals import Fading
from sourcewise.diagnosis.measures.wiring import Paths

Given = Form | Literal[""]


@dataclass(frozen=True, slots=True)
class Zeros:
    """Matrices that were all zeros before the first step, by name, and what became of them."""

    names: tuple[str, ...]
    stuck: tuple[str, ...]  # of these, still zeros after `steps`, although they learn
    tables: int  # of these, embeddings of tokens
    starved: float  # share of the other matrices that had no gradient at the first step
    steps: int


@dataclass(frozen=True, slots=True)
class State:
    """An output of the encoder that nothing read, and what the decoder began with in its place."""

    name: str
    shape: tuple[int, ...]
    begun: str  # in words
    read: bool  # whether the loss depends on the encoder all the same


@dataclass(frozen=True, slots=True)
class Standing:
    """A recurrent cell that began each of its `calls` with the same state: its path, its class, which part of the
    state that is ("": all of it), and whether that is zeros.
    """

    name: str
    kind: str
    calls: int
    what: str
    zeros: bool


@dataclass(frozen=True, slots=True)
class Gradients:
    """What became of gradients between backward() and the optimizers' steps.

    `left` is what earlier steps had left in the way, over what came, of the optimizer where that is most; `erased` that
    gradients came and an optimizer found none; `untaken` how many steps went by without any step of an optimizer;
    `strangers` how many of the `held` tensors of the optimizers no module has; `kept` what share of a gradient that
    came an optimizer found, NaN where not known, and `adaptive` whether it divides by their size, as Adam does;
    `outside` how many tensors, and weights in them, the loss depends on that neither a module nor an optimizer has;
    `thrown` of gradients that no optimizer took before the next step of the loop, how many were gone then, and of how
    many.
    """

    left: float = 0.0
    erased: bool = False
    untaken: int = 0
    strangers: int = 0
    held: int = 0
    kept: float = math.nan
    adaptive: bool = False
    outside: tuple[int, int] = (0, 0)
    thrown: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Decay:
    """The weight decay of optimizers: the highest, whether it is added to gradients (`coupled`, as Adam has it and
    AdamW has not), and the class of the optimizer.
    """

    value: float
    coupled: bool
    optimizer: str


@dataclass(frozen=True, slots=True)
class Edges:
    """Where targets begin and end: rows, how many end with the commonest last label, how many of the others are as
    long as the longest; whether lengths vary in a way that sources do not tell; and of the tokens that the decoder
    reads first and never says, None where there are none such: how many different, how many rows have the commonest,
    and in how many rows it is a label elsewhere.
    """

    rows: int
    ended: int
    full: int
    vary: bool
    first: tuple[int, int, int] | None
    repeated: int = 0  # rows that end with the same label twice or more, padding that counts or not
    pads: int = 0  # in the step that was looked at, labels of padding that count, or all where no padding is known
    labels: int = 0  # that count there


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Words of targets that the loss leaves out, behind the first of each: the least share of `steps` that were looked
    at, and in the last of them how many, of how many.
    """

    share: float
    steps: int
    left: int
    of: int


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding that never learns: of the ids of a step, how many rows are zeros or those of another id."""

    name: str
    ids: int
    zero: int
    equal: int


@dataclass(frozen=True, slots=True)
class Rates:
    """The learning rates of the first optimizer: the one that it was made with, where a schedule has noted that, and
    those of its steps: how many there were, how often the rate changed, and turned from rising to falling or back;
    whether it rises up to now and never fell, and whether `base` is known to be the peak of its schedule.
    """

    base: float
    highest: float
    steps: int
    changes: int
    turns: int
    rising: bool = False
    known: bool = False


@dataclass(frozen=True, slots=True)
class Rounded:
    """Of the matrices in half precision that an optimizer steps: their kind, and the share of the numbers with a
    gradient that a step moved, the others being rounded back.
    """

    kind: str
    moved: float
    numbers: int
    rate: float


@dataclass(frozen=True, slots=True)
class Dead:
    """How many parts of sources moved no output at all when others stood there, of how many that were tried."""

    unmoved: int
    tried: int
    parts: Literal["words", "quarters"]  # single words, or quarters of sources of frames


@dataclass(frozen=True, slots=True)
class Moves:
    """How far outputs move, over the largest: by themselves, with other sources; with other words in the later half of
    the targets before these, where the first of them is to be said, and behind it; whether these move no output that
    says the next word, but the one after it (`skipped`); with more padding behind the
    sources; with other rows in the batch, and where in the modules rows begin to read each other; with the same rows in
    other places of the batch. `unreached` is the share of the outputs that a single place of their source never moves,
    of a network that is not trained yet, `dead` how much of the sources moved no output at all when something else
    stood there. `order` is how far they move when sources are turned from end to beginning,
    `text` whether these are ids. `unread` counts passes in which no word of the targets moved any output, and
    `choiceless` says where a softmax runs over a single entry, `scrambled` where numbers are viewed as if that turned
    their axes; `sharp` is the least standard deviation of scores over the places of the sources, of a
    network that is not trained yet. None: not tried.
    """

    itself: float = 0.0
    source: float | None = None
    future: float | None = None
    own: float | None = None
    past: float | None = None
    skipped: bool = False
    padding: float | None = None
    company: float | None = None
    mixed: str = ""
    place: float | None = None
    unreached: float | None = None
    dead: Dead | None = None
    order: float | None = None
    text: bool = True
    unread: int = 0
    choiceless: str = ""
    scrambled: str = ""
    sharp: float = math.nan


@dataclass(frozen=True, slots=True)
class Observed:
    """What steps of a training showed: the last that was looked at, and what the loss takes the outputs for.

    `given` is what the loss is given, "" where that is not known; `spread` the standard deviation of the
    log-probabilities over the vocabulary.
    """

    step: FirstStep | None = None
    given: Given = ""
    squeezed: str = ""  # what passes over the logits before their softmax, in words
    repeated: str = ""  # a layer that stands several times in its list, in words
    loss: float = math.nan  # as the training has it
    nats: float = math.nan  # of a label that counts
    scale: float = math.nan  # times the loss, of which backward() makes gradients
    tokens: int = 0  # labels that count in this step
    places: int = 0  # labels, those that do not count among them
    shares: tuple[tuple[float, float], ...] = ()  # of each step looked at: loss / nats, and tokens / places
    smoothing: float = 0.0  # share of a label that the loss spreads over the vocabulary
    temperature: float = 1.0  # that the outputs are divided by before the softmax of the loss
    spread: float = math.nan
    moves: Moves = field(default_factory=Moves)
    zeros: Zeros | None = None
    state: State | None = None
    standing: Standing | None = None
    carried: str = ""  # which state goes on from batch to batch, in words
    detached: str = ""  # what of the encoder is read without its gradient, in words
    edges: Edges | None = None
    uncounted: Uncounted | None = None
    gradients: Gradients = field(default_factory=Gradients)
    fading: Fading | None = None
    began: tuple[Weight, ...] = ()  # before the first step
    first: tuple[Weight, ...] = ()  # in the first step that was looked at
    early: bool = False  # whether it is the first step, where a branch that starts at zero starves what is before it
    unheld: bool = False  # whether the optimizers are not known
    flattened: str = ""  # how labels are flattened otherwise than the outputs they are held to, in words
    tables: tuple[Table, ...] = ()  # that are read and never learn
    rates: Rates | None = None
    decay: Decay | None = None

    @property
    def paths(self) -> Paths:
        """As far as it shows."""
        spread = 0.0 if self.spread == 0 else math.nan  # what is usual at the start, of any module, is not known
        moves = self.moves
        return Paths(
            spread,
            source=moves.source,
            padding=moves.padding,
            unpadded=moves.source,
            future=moves.future,
            past=moves.past,
            company=moves.company,
            mixed=moves.mixed,
            place=moves.place,
            order=moves.order,
        )
