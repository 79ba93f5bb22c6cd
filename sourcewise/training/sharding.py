"""A training over several processes: FSDP2 on a mesh of replicas × shards, the parts of each step dealt to processes.

FSDP2 (`fully_shard`) shards a copy of the objective, gathers weights where a forward pass needs them, and sums the
gradients of all processes in fp32. The objective itself stays a plain module. It holds no weights, but where something
is evaluated or written: then it is given whole ones.
"""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.errors import RequestError
from sourcewise.model.borrowed import borrowed
from sourcewise.model.families.transformer import Transformer
from sourcewise.model.parts import ParameterInfo
from sourcewise.model.quantised import is_quantised
from sourcewise.model.weights.weight_files import first_line
from sourcewise.runtime.ranks import Ranks
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.parts import Part, dealt, drawing
from sourcewise.training.state import Progress, make_current
from sourcewise.training.step import Found


@dataclass(frozen=True, slots=True)
class Mesh:
    """The processes as replicas × shards: each row of `shards` processes holds the weights once."""

    of: Any  # torch's DeviceMesh
    shards: int
    shard: int  # of this process

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all shards, in place."""
        import torch.distributed as dist

        if self.shards > 1:
            dist.all_reduce(tensor, group=self.of.get_group("shard"))
        return tensor


def mesh_of(ranks: Ranks, shards: int, kind: str, timeout: float) -> Mesh:
    """The mesh of all processes. Raises RequestError if the shards do not divide them."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh

    if ranks.world % shards:
        raise RequestError(f"train.shard: {shards} shards do not divide {ranks.world} processes")
    places = torch.arange(ranks.world).view(-1, shards)
    limit = timedelta(seconds=timeout)
    groups = []
    for lines in (places.T, places):
        made = [(line.tolist(), dist.new_group(line.tolist(), timeout=limit)) for line in lines]
        groups.append(next(group for line, group in made if ranks.rank in line))
    of = DeviceMesh.from_group(groups, kind, mesh=places, mesh_dim_names=("replicate", "shard"))
    return Mesh(of, shards, ranks.rank % shards)


def share_weights(objective: nn.Module) -> None:
    """Give all processes the weights of the first, so that they begin with the same ones."""
    import torch.distributed as dist

    for tensor in (*objective.parameters(), *objective.buffers()):
        if tensor.is_floating_point():
            own = tensor.data.contiguous()
            dist.broadcast(own, 0)
            tensor.data.copy_(own)


def sharded(objective: Objective, mesh: Mesh, precision: torch.dtype) -> Objective:
    """A copy of an objective that FSDP2 has sharded, which computes in this precision.

    Raises RequestError for a network that cannot be sharded by blocks.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    body = objective.network.body
    if is_quantised(body):
        raise RequestError("model.quantization: a quantised base is trained by one process; leave one of the two out")
    if mesh.shards > 1 and not isinstance(body, Transformer):
        raise RequestError(f"train.shard: {type(body).__name__} is not sharded, only T5 and BART are; set 1")
    if mesh.shards > 1 and (objective.guided[0] or objective.mass):  # reads attention past the blocks' own outputs
        key = "guided_attention" if objective.guided[0] else "attention_mass"
        raise RequestError(f"train.{key}: is not for weights in shards; set 0, or train.shard 1")
    copied = copy.deepcopy(objective).float()
    policy = MixedPrecisionPolicy(
        param_dtype=None if precision == torch.float32 else precision,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # would round the bias of positions, in which MASKED stands
    )
    if mesh.shards > 1:  # else one group, which is one sum per step
        for block in (block for blocks in copied.network.stacks.values() for block in blocks):
            fully_shard(block, mesh=mesh.of, mp_policy=policy)
    fully_shard(copied, mesh=mesh.of, mp_policy=policy)
    for module in copied.modules():
        if isinstance(module, FSDPModule):  # the loss is divided by the targets of the step; gloo has no other sum
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return copied


class ShardedAdamW(MasterAdamW):
    """AdamW on this process's shards of the weights, which FSDP2 keeps in fp32."""

    def __init__(
        self,
        module: nn.Module,
        plain: nn.Module,
        mesh: Mesh,
        train: TrainConfig,
        precision: torch.dtype,
        infos: Iterable[ParameterInfo] = (),
        borrowed: Iterable[nn.Parameter] = (),
    ) -> None:
        """`plain` is the module without shards, which holds whole weights in `in_full` and `rounded`."""
        self.mesh, self.precision = mesh, precision
        super().__init__(module, train, torch.float32, infos, borrowed)
        self.whole = dict(plain.named_parameters())
        self.pieces = dict(module.named_parameters())
        self._empty()

    def _own(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to_local()  # type: ignore[attr-defined, no-any-return]

    def _make_room(self, module: nn.Module, precision: torch.dtype) -> None:
        """Nothing: FSDP2 makes room for gradients, and for weights in the precision of the passes."""

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients, one per parameter, which FSDP2 has summed over parts and processes."""
        for gradient, master in zip(gradients, self.masters, strict=True):
            master.grad = None if gradient is None else gradient.to_local()  # type: ignore[attr-defined]

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """See MasterAdamW."""
        if not tensors:
            return torch.zeros(0)
        return self.mesh.total(torch.stack(torch._foreach_norm(list(tensors))).square()).sqrt()

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """See MasterAdamW."""
        return self.norms(tensors).norm()

    def publish(self) -> None:
        """Nothing: masters and shards of the network are the same tensors."""

    def _publish_frozen(self) -> None:
        """Nothing, likewise."""

    @contextlib.contextmanager
    def in_full(self) -> Iterator[None]:
        """See MasterAdamW; all processes have to enter together."""
        with self._whole(torch.float32):
            yield

    @contextlib.contextmanager
    def rounded(self) -> Iterator[None]:
        """See MasterAdamW; all processes have to enter together."""
        with self._whole(self.precision):
            yield

    @contextlib.contextmanager
    def _whole(self, precision: torch.dtype) -> Iterator[None]:
        for name, piece in self.pieces.items():
            self.whole[name].data = self.gathered(piece).to(precision)
        try:
            yield
        finally:
            self._empty()

    def gathered(self, piece: Any) -> Tensor:
        """The whole of a sharded parameter."""
        return piece.detach().to_local() if self.mesh.shards == 1 else piece.detach().full_tensor()  # type: ignore[no-any-return]

    def _empty(self) -> None:
        """Leave the plain module NaN in place of weights, which take no memory."""
        for parameter in self.whole.values():
            nothing = torch.full((), math.nan, dtype=parameter.dtype, device=parameter.device)
            parameter.data = nothing.expand(parameter.shape)

    def weights(self) -> dict[str, Tensor]:
        """Name → whole master weight; all processes have to call it together."""
        return {name: self.gathered(self.pieces[name]) for name in self.names}

    def spread(self, name: str, own: Tensor) -> Tensor:
        """See MasterAdamW: a DTensor of which this is the shard, as of the parameter of that name."""
        if self.mesh.shards == 1:
            return own
        piece: Any = self.pieces[name].detach()
        of = {"shape": piece.shape, "stride": piece.stride()}
        return type(piece).from_local(own, piece.device_mesh, piece.placements, **of)  # type: ignore[no-any-return]

    @torch.no_grad()
    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Set this process's shards to whole weights."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(self.cut(weights[name]))

    def cut(self, whole: Tensor) -> Tensor:
        """This process's shard of a whole tensor, cut as FSDP2 does."""
        if self.mesh.shards == 1 or not whole.ndim:
            return whole
        pieces = torch.chunk(whole, self.mesh.shards)
        return pieces[self.mesh.shard] if self.mesh.shard < len(pieces) else whole[:0]


class ShardedEngine:
    """`backward()` through the sharded module; each process computes its parts of a step.

    A process with fewer parts than others repeats one that counts nothing, so that all take part in as many sums.
    """

    workers = 1

    def __init__(self, module: Any, optimizer: ShardedAdamW, ranks: Ranks, parts: int, target_cost: float) -> None:
        self.module, self.optimizer, self.ranks = module, optimizer, ranks
        self.parts, self.target_cost = parts, target_cost

    def gradients(self, batches: Sequence[Sequence[Part]], targets: int, reference: float) -> Found:
        """See StepEngine; nats and source tokens are those of all processes."""
        parts, parameters = [part for of in batches for part in of], self.optimizer.parameters
        idle = min(parts, key=lambda part: part.cost)
        mine = dealt(parts, self.ranks.rank, self.ranks.world)
        nats, source_tokens = torch.zeros((), device=parameters[0].device), torch.zeros((), dtype=torch.int64)
        for place, part in enumerate(mine):
            if self.optimizer.mesh.shards == 1:  # gradients are summed over processes once
                self.module.set_requires_gradient_sync(place == len(mine) - 1)
            minimised, found, read = self._forward(part or idle, reference)
            (minimised * (1 / targets if part else 0.0)).backward()
            if part:
                nats, source_tokens = nats + found, source_tokens + read
        self.optimizer.add([parameter.grad for parameter in parameters])
        for parameter in parameters:
            parameter.grad = None
        return [[self.ranks.sum(nats)]], int(self.ranks.sum(source_tokens))

    def _forward(self, part: Part, reference: float) -> tuple[Tensor, Tensor, int]:
        """The loss of a part, its nats, and its source tokens.

        What fails on one process ends all: making the batch and, where processes do not wait for each other in it, the
        pass.
        """
        alone = self.optimizer.mesh.shards == 1
        with drawing(part.seed, self.optimizer.parameters[0].device):
            with self.ranks.agreed():
                batch = part.make()
                found = self.module(batch, reference=reference) if alone else None
            minimised, nats = found or self.module(batch, reference=reference)
        return minimised, nats.detach(), int(batch.source.lengths.sum())


def set_up_ranks(
    objective: Objective, ranks: Ranks, train: TrainConfig, precision: torch.dtype, target_cost: float
) -> tuple[Objective, ShardedAdamW, ShardedEngine]:
    """The sharded copy of an objective, its optimizer and engine; the objective itself holds no weights then."""
    device = objective.network.device
    mesh = mesh_of(ranks, train.shard, device.type, train.timeout)
    share_weights(objective)
    module = sharded(objective, mesh, precision)
    network = module.network
    lent = borrowed(network).values()
    optimizer = ShardedAdamW(module, objective, mesh, train, precision, network.parts(), lent)
    parts = -(-ranks.world // train.accumulate)
    return module, optimizer, ShardedEngine(module, optimizer, ranks, parts, target_cost)


def save_shards(at: Progress, optimizer: MasterAdamW, state: Path, ranks: Ranks) -> None:
    """Write the state of a sharded training into a new folder beside `state`, as safetensors, and make it the current.

    Each process writes its shards. Raises RequestError if the disk is full or the folder cannot be written.
    """
    import torch.distributed.checkpoint as dcp

    new = state.with_name(f"step-{at.step}")
    ranks.first(lambda: _make_anew(new))
    with ranks.agreed():
        try:
            dcp.save(optimizer.tensors(), storage_writer=dcp.HuggingFaceStorageWriter(str(new), save_distributed=True))
        except (OSError, RuntimeError, dcp.CheckpointException) as error:
            raise RequestError(f"{new}: cannot be written ({_reason(error)}); the state before is kept") from None
    steps = optimizer.steps()
    ranks.first(lambda: make_current(at, steps, new, state))


def _make_anew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # left by a kill
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RequestError(f"{folder}: cannot be made ({error.strerror}); the state before is kept") from None


def load_shards(folder: Path, steps: dict[str, float], optimizer: MasterAdamW) -> None:
    """Fill an optimizer from a folder that `save_shards` wrote, by however many processes.

    Raises RequestError for a damaged folder, and one of another network.
    """
    import torch.distributed.checkpoint as dcp

    older = {f"frozen.{name}" for name in optimizer.borrowed}  # which a folder of an older version has, too
    reader, wanted = dcp.HuggingFaceStorageReader(str(folder)), optimizer.tensors(steps)
    try:
        there: Any = reader.read_metadata().state_dict_metadata
        had = {name: tuple(each.size) for name, each in there.items() if name not in older}
    except Exception as error:  # of a damaged file, anything
        raise RequestError(f"{folder}: damaged ({first_line(error)}); train again with --overwrite") from None
    has = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    if differ := [name for name in dict.fromkeys((*has, *had)) if had.get(name) != has.get(name)]:
        sizes = (str(of.get(differ[0], "not there")) for of in (had, has))
        problem = f"{differ[0]} is {next(sizes)} in it, and {next(sizes)} in the network"
        raise RequestError(f"{folder}: not the state of the network that recipe.yaml describes: {problem}")
    try:
        dcp.load(wanted, storage_reader=reader, no_dist=not is_sharded(optimizer))
    except (Exception, dcp.CheckpointException) as error:
        raise RequestError(f"{folder}: damaged ({_reason(error)}); train again with --overwrite") from None
    optimizer.filled()


def _reason(error: BaseException) -> str:
    """Why a state was not written or read: the first failure of any process, in a line."""
    failures = getattr(error, "failures", {})
    cause = next((found for found, _ in failures.values()), error)
    return first_line(cause) if isinstance(cause, Exception) else type(cause).__name__


def is_sharded(optimizer: MasterAdamW) -> bool:
    """Whether several processes hold the weights together."""
    return isinstance(optimizer, ShardedAdamW) and optimizer.mesh.shards > 1
