"""Two models in turn: the first answers, the second decides what the first is unsure of.

The second model is asked when
- the first one's confidence is below the threshold (a setting), or
- the first one says "not spam" where the rules strongly disagree (score CONTRADICTION or more), or where the text tried
  to talk to the checker: such a "not spam" may be the text's own.

Its verdict then stands. Without a second model the first one's stands. A model that fails gives an error, never a
verdict: neither of the other model nor of the rules. Items with nothing to judge are settled by the rules alone.
"""

from __future__ import annotations

from dataclasses import replace

import httpx

from ..items import Item, Verdict
from ..settings import Settings
from . import rules
from .base import Readiness
from .indicators import NEUTRAL, Indicator
from .ollama import CONNECT_SECONDS, OllamaModel, full_name, model_states
from .prompt import Prompter

CONTRADICTION = 0.85
"""Score of the rules from which a model's "not spam" is not believed at once: at least two kinds of strong evidence."""


class CascadeClassifier:
    """Rules for evidence, models for the verdict."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is asked yet. Raises prompt.ContextTooSmall."""
        self._threshold = settings.cascade_threshold
        self._rules_threshold = settings.rules_threshold
        prompter = Prompter(settings)
        self._client = httpx.AsyncClient(
            base_url=str(settings.ollama_url),
            timeout=httpx.Timeout(settings.ollama_timeout_seconds, connect=CONNECT_SECONDS),
            trust_env=False,  # texts with personal data do not go through a proxy that the environment names
        )
        names = [settings.ollama_default_model]
        second = settings.ollama_second_model.strip()
        if second and full_name(second) != full_name(names[0]):
            names.append(second)
        self._models = [OllamaModel(settings, name, self._client, prompter) for name in names]

    async def classify(self, item: Item) -> Verdict:
        """Judge one item. Raises ClassifierUnavailable or AnswerInvalid."""
        evidence = await rules.examine_aside(item)
        if not rules.has_content(item):
            return rules.verdict(evidence, self._rules_threshold)
        verdict = await self._models[0].judge(item, evidence)
        if len(self._models) > 1 and self._is_doubtful(verdict, evidence):
            verdict = await self._models[1].judge(item, evidence)
        found = tuple(code for code in evidence.indicators if code not in NEUTRAL)
        return replace(verdict, indicators=found + verdict.indicators)

    def _is_doubtful(self, verdict: Verdict, evidence: rules.Evidence) -> bool:
        if verdict.confidence < self._threshold:
            return True
        contradicted = evidence.score >= CONTRADICTION or Indicator.PROMPT_INJECTION in evidence.indicators
        return not verdict.is_spam and contradicted

    async def readiness(self) -> Readiness:
        """The state of every model. One that is not loaded will be by the first call."""
        return Readiness(await model_states(self._client, [model.name for model in self._models]))

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()
