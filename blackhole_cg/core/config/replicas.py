"""From a service with `instances: N` to N services, NAME-1 to NAME-N, early; who needs it needs them all.

There are specs of more than N where there may be more of them for a while; nobody needs those.
Works on the tree, as `instances.expand` does, where every value still knows the place it was written at.
"""

from __future__ import annotations

from typing import Final

from blackhole_cg.core.config.instances import Expansion, Origin
from blackhole_cg.core.config.rollout_kinds import Share
from blackhole_cg.core.config.template_text import fill_node, has_placeholder, weigh
from blackhole_cg.core.config.tree import Mapping, Node, Scalar, Sequence, is_null, without
from blackhole_cg.core.rollout import most_surge

KEY: Final = "instances"
MOST: Final = 1000
_MOST_NODES: Final = 500_000


def replicate(root: Mapping) -> Expansion:
    """The tree with these services in it, and where they come from."""
    written = root.entries.get("services")
    made = Expansion(root)
    if not isinstance(written, Mapping):
        return made
    groups: dict[str, list[str]] = {}
    services = Mapping(written.position)
    for name, node in written.entries.items():
        count = _count(node)
        if count is None or not isinstance(node, Mapping):
            services.add(name, written.keys[name], node)
            continue
        surge = _surge(node, count)
        if not _can_be_many(made, name, node, count, surge):
            services.add(name, written.keys[name], without(node, (KEY,)))
            continue
        groups[name] = [f"{name}-{index}" for index in range(1, count + 1)]
        for index in range(1, count + surge + 1):
            instance = f"{name}-{index}"
            if instance in written.entries:
                what = "" if index <= count else ", and an additional instance would have its name"
                message = f"there is a service '{instance}' already (at {written.keys[instance]}){what}"
                made.report(node.keys[KEY], ("services", name, KEY), message)
                continue
            services.add(instance, written.keys[name], _fill(node, instance, index))
            made.origins[instance] = Origin(
                name, written.keys[name], frozenset(), section="services", is_surge=index > count
            )
    if groups:
        for name, node in services.entries.items():
            services.entries[name] = _need_all(node, groups)
        made.root = Mapping(root.position, {**root.entries, "services": services}, dict(root.keys))
    return made


def _count(node: Node) -> int | None:
    """How many it is to be; None where it does not say, or not so that it can be understood."""
    value = node.entries.get(KEY) if isinstance(node, Mapping) else None
    if not isinstance(value, Scalar) or not value.plain or not value.text.isdecimal():
        return None
    count = int(value.text) if len(value.text) < 9 else 0
    return count if 1 <= count <= MOST else None


def _surge(node: Mapping, count: int) -> int:
    """How many more there may be while they are replaced."""
    rollout = node.entries.get("rollout")
    value = rollout.entries.get("max_surge") if isinstance(rollout, Mapping) else None
    try:
        return most_surge(Share().read(value.text), count) if isinstance(value, Scalar) else 0
    except ValueError:  # it is reported where it is read again
        return 0


def _can_be_many(made: Expansion, name: str, node: Mapping, count: int, surge: int) -> bool:
    port = node.entries.get("tcp_port")
    is_one = isinstance(port, Scalar) and not is_null(port) and port.text != "auto"
    if count + surge > 1 and is_one and not has_placeholder(node, ("tcp_port",)):
        more = f", and {surge} more while they are replaced," if surge else ""
        accepted = "accepted: auto, or a number with {index} in it"
        message = f"{count} instances{more} cannot listen on one port ({accepted})"
        made.report(port.position if port else node.position, ("services", name, "tcp_port"), message)
        return False
    if (count + surge) * weigh(node) > _MOST_NODES:
        bound = f"the instances come to too much (accepted: up to {_MOST_NODES} values in all)"
        made.report(node.keys[KEY], ("services", name, KEY), bound)
        return False
    return True


def _fill(node: Mapping, instance: str, index: int) -> Node:
    place = node.position
    names = {word: Scalar(place, instance, True) for word in ("id", "name")}
    return fill_node(without(node, (KEY,)), {**names, "index": Scalar(place, str(index), True)})


def _need_all(node: Node, groups: dict[str, list[str]]) -> Node:
    """The service, needing each of a group where it needs the group."""
    needs = node.entries.get("depends_on") if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(needs, Sequence | Mapping):
        return node
    if isinstance(needs, Sequence):
        items: list[Node] = []
        for item in needs.items:
            members = groups.get(item.text) if isinstance(item, Scalar) else None
            items += [Scalar(item.position, each, True) for each in members] if members else [item]
        joined: Node = Sequence(needs.position, items)
    else:
        joined = Mapping(needs.position)
        for name, condition in needs.entries.items():
            for each in groups.get(name, [name]):
                joined.add(each, needs.keys[name], condition)
    return Mapping(node.position, {**node.entries, "depends_on": joined}, dict(node.keys))
