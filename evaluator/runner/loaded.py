"""The model that was loaded last: the next run takes it over where it asks for the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluator.config.schema import RunConfig
from evaluator.runner.parts import build_model
from evaluator.runner.trust import Trust

if TYPE_CHECKING:
    from evaluator.data import Pack
    from evaluator.protocols import GenerativeModel


@dataclass
class LoadedModel:
    """One model at most is held: memory may not have room for two."""

    _model: Any = None
    _asked: list[str] = field(default_factory=list)
    """What configurations say of it: as they are, and with the revision that was found."""
    taken_over: bool = False
    """Whether what a run had last was loaded by an earlier one, and so is warm."""

    def model_of(
        self, config: RunConfig, pack: Pack, *, device: str, trust: Trust
    ) -> GenerativeModel:
        """The model of a run. Weights are read anew only where the section `model` differs."""
        self.taken_over = False
        if config.model.kind == "images":
            return build_model(config, pack, device=device, trust=trust)
        asked = config.model.model_dump_json()
        self.taken_over = asked in self._asked
        if not self.taken_over:
            self._model, self._asked = None, []
            self._model = build_model(config, pack, device=device, trust=trust)
            self._asked = [asked]
            if (revision := self._model.describe().get("revision")) is not None:
                pinned = config.model.model_copy(update={"revision": revision})
                self._asked.append(pinned.model_dump_json())
        elif config.model.kind == "diffusers":
            self._model = self._model.for_generation(config.generation, attachments=pack)
        elif config.model.kind == "optimal_denoiser":
            self._model = self._model.for_generation(config.generation)
        model: GenerativeModel = self._model
        return model
