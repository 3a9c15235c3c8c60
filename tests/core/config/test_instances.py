"""Templates and instances: what a service that was made from them is, and where its errors are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.config import resolve, show_config
from blackhole_cg.core.config.effective import render_yaml
from blackhole_cg.core.config.instances import MAX_NODES, expand
from blackhole_cg.core.config.template_text import LATER
from blackhole_cg.core.config.tree import Mapping, Position, Scalar, Sequence
from blackhole_cg.core.spec import ServiceSpec
from tests.core.config.files import CONTEXT, MAIN, lines_of, load

HOST = """\
templates:
  servicehost:
    command: [/dist/bin/servicehost, -wasm, "{wasm_path}", -dbPath, "{db_name}", -port, "{tcp_port}"]
    tcp_port: "{port}"
    health_check: {http: {path: "/api/{id}/status"}, interval: 15s}
instances:
  - {id: shop, template: servicehost, wasm_path: apps/shop.wasm, db_name: shop, port: 5001}
  - {id: blog, template: servicehost, wasm_path: "a b.wasm", db_name: "{x} $y", port: 5002}
"""


def specs(text: str, **environ: str) -> dict[str, ServiceSpec]:
    return dict(resolve(load(text, environ), CONTEXT).services)


def template(body: str, **values: str) -> ServiceSpec:
    """The one instance `a` of a template."""
    keys = "".join(f", {name}: {value}" for name, value in values.items())
    return specs(f"templates: {{t: {body}}}\ninstances: [{{id: a, template: t{keys}}}]\n")["a"]


def test_an_instance_is_a_service_named_by_its_id() -> None:
    made = specs(HOST)
    assert list(made) == ["shop", "blog"]
    shop, blog = made["shop"], made["blog"]
    assert shop.argv == (
        "/dist/bin/servicehost",
        *["-wasm", "apps/shop.wasm", "-dbPath", "shop", "-port", "5001"],
    )
    assert blog.argv[2:5] == ("a b.wasm", "-dbPath", "{x} $y")
    assert (shop.instance_of, shop.tcp_port, shop.data_dir) == (
        "servicehost",
        5001,
        "/var/lib/blackhole/shop",
    )
    assert shop.probes.liveness is not None
    assert shop.probes.liveness.target.path == "/api/shop/status"  # type: ignore[union-attr]
    assert shop.environment["BLACKHOLE_SERVICE"] == "shop"


def test_a_service_is_the_same_whether_written_or_made() -> None:
    made = template("{command: [/bin/x, '{a1}'], environment: {A: '{a1}'}}", a1="v")
    written = specs("services: {a: {command: [/bin/x, v], environment: {A: v}}}")["a"]
    assert made.config_hash == written.config_hash
    assert (made.instance_of, written.instance_of) == ("t", None)


def test_every_value_takes_placeholders_not_only_texts_that_are_handed_over() -> None:
    made = template(
        "{command: [/bin/x], data_dir: '/data/{db}', unix_socket: '/run/{name}.sock', enabled: '{on}', "
        "resources: {memory_max: '{mem}'}, user: '{who}', config: {n: '{n}', text: 'n={n}'}}",
        db="d",
        on="false",
        mem="64M",
        who="",
        n="3",
    )
    assert (made.data_dir, made.unix_socket, made.enabled) == ("/data/d", "/run/a.sock", False)
    assert (made.limits.memory_max_bytes, made.user) == (64 * 2**20, None)
    assert made.handed_config == '{"n": 3, "text": "n=3"}'


def test_a_value_is_never_more_than_one_argument() -> None:
    made = template("{command: '/bin/x --a {v} \"{v} y\"', args: ['{v}']}", v='"b \' -c"')
    assert made.argv == ("/bin/x", "--a", "b ' -c", "b ' -c y", "b ' -c")


def test_what_is_not_a_placeholder_stays_as_written() -> None:
    made = template("{command: [sh, -c, 'echo $${v} ${v:-d} {v} {} {{v}} { v }']}", v="'{w}'")
    assert made.argv[2] == "echo ${v} d {w} {} {{w}} { v }"


def test_variables_of_values_are_replaced_and_stay_secret() -> None:
    text = """\
        templates: {t: {command: [x], environment: {A: "p={pw}", B: "{pw}"}}}
        instances: [{id: a, template: t, pw: "${SECRET}"}]
        """
    loaded = load(text, {"SECRET": "hunter2"})
    assert resolve(loaded, CONTEXT).services["a"].environment["A"] == "p=hunter2"
    shown = show_config(loaded, CONTEXT)
    assert shown["services"]["a"]["environment"] == {"A": "p=${SECRET}", "B": "${SECRET}"}
    assert "templates" not in shown and "instances" not in shown


def test_what_is_shown_is_a_configuration_with_the_same_services() -> None:
    from blackhole_cg.core.config import render_yaml

    loaded = load(HOST)
    again = resolve(load(render_yaml(show_config(loaded, CONTEXT))), CONTEXT).services
    hashes = {name: each.config_hash for name, each in resolve(loaded, CONTEXT).services.items()}
    assert {name: each.config_hash for name, each in again.items()} == hashes


FRAGMENTS = {
    MAIN: "include: [hosts/t.yaml, instances.d/*.yaml]\nservices: {web: {depends_on: [shop, blog]}}\n",
    "hosts/t.yaml": "templates: {t: {command: [bin/x, '{v}'], data_dir: data}}\n",
    "instances.d/a.yaml": "instances: [{id: shop, template: t, v: 1}]\n",
    "instances.d/b.yaml": "instances:\n  - {id: blog, template: t, v: 2}\n",
}


def test_templates_and_instances_come_from_included_files_too() -> None:
    from blackhole_cg.core.config import load_config
    from tests.core.config.files import MemoryReader

    made = resolve(load_config(MAIN, MemoryReader(FRAGMENTS), {}), CONTEXT).services
    assert set(made) == {"web", "shop", "blog"}
    # Paths of a template begin where the template is written.
    assert made["blog"].argv == ("/etc/bh/hosts/bin/x", "2")
    assert made["blog"].data_dir == "/etc/bh/hosts/data"


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        (
            "instances.d/b.yaml",
            "instances:\n  - {id: shop, template: t, v: 2}\n",
            [
                "instances.d/b.yaml:2:10: instances[1].id: there is an instance 'shop' already "
                "(at instances.d/a.yaml:1:13)",
                "blackhole.yaml:2:37: services.web.depends_on.blog: there is no service 'blog' "
                "(accepted: shop, web)",
            ],
        ),
        (
            "instances.d/b.yaml",
            "templates: {t: {}}\ninstances: {}\n",
            [
                "instances.d/b.yaml:1:13: templates.t: is defined twice (first at hosts/t.yaml:1:13)",
                "instances.d/b.yaml:2:1: instances: a mapping is not a list (accepted: a list)",
                "blackhole.yaml:2:37: services.web.depends_on.blog: there is no service 'blog' "
                "(accepted: shop, web)",
            ],
        ),
    ],
)
def test_clashes_between_files_name_both_places(name: str, content: str, lines: list[str]) -> None:
    assert sorted(lines_of({**FRAGMENTS, name: content})) == sorted(lines)


def test_a_template_may_wait_for_instances() -> None:
    assert lines_of({MAIN: "templates: {t: {command: ['{x}'], tcp_port: '{p}'}}\n"}) == []
    assert lines_of({MAIN: "templates: {t: {command: ['{x}'], tcp_port: 0}}\n"}) == [
        "blackhole.yaml:1:45: templates.t.tcp_port: '0' is out of range (accepted: 1 to 65535, or auto)"
    ]


def test_instances_that_come_to_too_much_are_refused_quickly() -> None:
    items = ", ".join("x" * 3 for _ in range(2000))
    count = MAX_NODES // 2000 + 10
    instances = "".join(f"  - {{id: i{number}, template: t}}\n" for number in range(count))
    (line,) = lines_of({MAIN: f"templates: {{t: {{args: [{items}]}}}}\ninstances:\n{instances}"})
    assert f"the instances come to too much (accepted: up to {MAX_NODES} values in all)" in line


HERE = Position("x", 1, 1)
WORDS = st.sampled_from(["a", "b", "c", "name", *sorted(LATER)])
TEXTS = st.lists(st.one_of(st.text("{}$1\" '", max_size=5), WORDS.map(lambda word: f"{{{word}}}"))).map(
    "".join
)


@given(st.lists(TEXTS, max_size=4), st.fixed_dictionaries(dict.fromkeys("abc", TEXTS)))
def test_filling_is_one_pass_and_loses_nothing(args: list[str], values: dict[str, str]) -> None:
    """Against the plainest description: each placeholder of the template once, nothing of a value again."""
    import re

    def plain(text: str) -> str:
        known = {**values, "name": "n", "id": "n"}
        return re.sub(r"(?<!\$)\{(\w+)\}", lambda match: known.get(match[1], match[0]), text)

    def mapping(**nodes: object) -> Mapping:
        return Mapping(HERE, dict(nodes), dict.fromkeys(nodes, HERE))  # type: ignore[arg-type]

    tree = mapping(t=mapping(args=Sequence(HERE, [Scalar(HERE, text, False) for text in args])))
    used = {word for word in "abc" if any(re.search(rf"(?<!\$)\{{{word}\}}", text) for text in args)}
    keys = {word: Scalar(HERE, values[word], False) for word in used}
    item = mapping(id=Scalar(HERE, "n"), template=Scalar(HERE, "t"), **keys)
    made = expand(mapping(templates=tree, instances=Sequence(HERE, [item])))
    assert made.diagnostics == []
    services = made.root.entries["services"]
    assert isinstance(services, Mapping)
    filled = services.entries["n"].entries["args"]  # type: ignore[union-attr]
    assert [node.text for node in filled.items] == [plain(text) for text in args]  # type: ignore[union-attr]


GROUP = """\
services:
  web:
    instances: 4
    command: [/bin/web, "{index}"]
    tcp_port: "520{index}"
    rollout: {max_surge: MORE}
  proxy: {command: /bin/proxy, depends_on: [web]}
"""


@pytest.mark.parametrize(("more", "count"), [("0", 0), ("1", 1), ("26%", 2), ("100%", 4), ("9", 4)])
def test_additional_instances_continue_the_numbering_and_nobody_needs_them(more: str, count: int) -> None:
    loaded = load(GROUP.replace("MORE", more))
    spec = resolve(loaded, CONTEXT)
    names = [f"web-{index}" for index in range(1, 5)]
    assert list(spec.services) == [*names, "proxy"]
    assert list(spec.services["proxy"].depends_on) == names
    assert list(spec.surge) == [f"web-{5 + index}" for index in range(count)]
    for index, each in enumerate(spec.surge.values(), 5):
        assert (each.argv, each.tcp_port) == (("/bin/web", str(index)), 5200 + index)
        assert each.instance_of == "web"
    assert spec.services["web-1"].rollout.max_unavailable == (0 if count else 1)
    shown = show_config(loaded, CONTEXT)["services"]
    assert list(shown) == [*names, "proxy"]
    assert resolve(load(render_yaml({"services": shown})), CONTEXT).services.keys() == spec.services.keys()
