"""Metrics as text: Prometheus' text format 0.0.4, or OpenMetrics 1.0 for whoever prefers it.

prometheus_client, which writes both, takes 1.5 MiB; so it is imported when somebody asks for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from blackhole_cg.observe.metrics import Family

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_END: Final = b"# EOF\n"
_OPENMETRICS_VERSIONS: Final = frozenset({"1.0.0", "0.0.1"})  # scrapers that ask for 0.0.1 take 1.0.0


def render(families: Iterable[Family], content_type: str) -> Iterator[bytes]:
    """The text of one of the two content types, metric by metric; `process_*` is the supervisor's own.

    In pieces, because the text of hundreds of services takes longer than the event loop should stand still.
    """
    from prometheus_client import PROCESS_COLLECTOR, exposition
    from prometheus_client.openmetrics import exposition as openmetrics

    generate = openmetrics.generate_latest if content_type == OPENMETRICS else exposition.generate_latest
    for metric in chain(map(_convert, families), PROCESS_COLLECTOR.collect()):
        text: bytes = generate(_Collector(metric))
        yield text.removesuffix(_END)
    if content_type == OPENMETRICS:
        yield _END


class _Collector:
    """One metric of prometheus_client, as it wants it handed over."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Any]:
        yield self._metric


def choose_content_type(accept: str) -> str:
    """OpenMetrics where the Accept header ranks it as high as the text format, and names it.

    Source: RFC 9110, section 12.5.1.
    """
    best = {TEXT: 0.0, OPENMETRICS: 0.0}
    for item in accept.split(","):
        media, *pairs = (part.strip().lower() for part in item.split(";"))
        parameters = dict(pair.partition("=")[::2] for pair in pairs)
        quality = _quality(parameters.get("q", "1"))
        if media == "application/openmetrics-text":
            if parameters.get("version", "1.0.0") in _OPENMETRICS_VERSIONS:
                best[OPENMETRICS] = max(best[OPENMETRICS], quality)
        elif media in {"text/plain", "text/*", "*/*"}:
            best[TEXT] = max(best[TEXT], quality)
    return OPENMETRICS if best[OPENMETRICS] and best[OPENMETRICS] >= best[TEXT] else TEXT


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _convert(family: Family) -> Any:
    from prometheus_client import Metric

    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    metric = Metric(family.name.removesuffix(suffix), family.help, family.kind)
    for labels, value in family.values:
        metric.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
    return metric
