"""A CIB in the words of crmsh: what `crm configure load update FILE` reads. Pure: XML in, text out.

Only what our templates make has words here; what crmsh has no word for, or what is not known here, is given as `xml`, which crmsh takes as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lxml import etree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.etree import _Element as Element

INDENT = " \\\n    "
"""Between the parts of one definition."""

SCORES = {"INFINITY": "inf", "-INFINITY": "-inf"}

COLOCATION = {"id", "score", "rsc", "rsc-role", "with-rsc", "with-rsc-role"}
ORDER = {"id", "first", "then", "first-action", "then-action", "kind", "symmetrical"}
"""Attributes for which crmsh has a place; it knows no `influence`, so constraints that have it are given as XML."""


def configure(cib: Element) -> str:
    r"""Return the definitions of all that is in the configuration, but of nodes: those have numbers of their own in every cluster.

    >>> print(configure(etree.fromstring('<cib><configuration><resources><primitive id="a" class="ocf" provider="p" type="t">'
    ...     '<instance_attributes id="i"><nvpair id="x" name="x" value="1 2"/></instance_attributes>'
    ...     '<operations><op id="o" name="start" interval="0s"/></operations></primitive></resources></configuration></cib>')), end="")
    primitive a ocf:p:t \
        params x="1 2" \
        op start interval=0s
    """
    configuration = cib.find("configuration")
    parts = [] if configuration is None else list(configuration)
    return "".join(f"{line}\n" for section in parts for line in _section(section))


def _section(section: Element) -> Iterator[str]:
    if section.tag in {"crm_config", "rsc_defaults", "op_defaults"}:
        word = "property" if section.tag == "crm_config" else str(section.tag)
        for group in section.iterchildren("*"):
            yield INDENT.join([f"{word} {group.get('id')}:", *_pairs(group)])
    elif section.tag in {"resources", "constraints"}:
        for item in section.iterchildren("*"):
            yield from _item(item)


def _item(item: Element) -> Iterator[str]:
    """Yield a resource, after what it holds, or a constraint."""
    if item.tag == "primitive":
        yield _primitive(item)
    elif item.tag == "clone" and item.find("primitive") is not None:
        for inner in item.iterfind("primitive"):
            yield _primitive(inner)
            yield INDENT.join([f"clone {item.get('id')} {inner.get('id')}", *_metas(item)])
    elif item.tag == "rsc_colocation" and set(map(str, item.attrib)) <= COLOCATION:
        who, whom = (_in_role(item, name, f"{name}-role") for name in ("rsc", "with-rsc"))
        yield f"colocation {item.get('id')} {_score(item)}: {who} {whom}"
    elif item.tag == "rsc_order" and set(map(str, item.attrib)) <= ORDER:
        symmetrical = f" symmetrical={item.get('symmetrical')}" if item.get("symmetrical") else ""
        first, then = (_in_role(item, name, f"{name}-action") for name in ("first", "then"))
        yield f"order {item.get('id')} {item.get('kind', 'Mandatory')}: {first} {then}{symmetrical}"
    elif item.tag == "rsc_location" and len(item) == 1 and item[0].tag == "rule":
        yield f"location {item.get('id')} {item.get('rsc')}{INDENT}{_rule(item[0])}"
    else:
        yield f"xml {_xml(item)}"


def _in_role(item: Element, name: str, role: str) -> str:
    return f"{item.get(name)}:{item.get(role)}" if item.get(role) else str(item.get(name))


def _score(item: Element) -> str:
    score = item.get("score", "0")
    return SCORES.get(score, score)


def _rule(rule: Element) -> str:
    role = f" $role={rule.get('role')}" if rule.get("role") else ""
    word = f" {rule.get('boolean-op', 'and')} "
    return f"rule $id={rule.get('id')}{role} {_score(rule)}: {word.join(_expression(one) for one in rule.iterchildren('*'))}"


def _expression(one: Element) -> str:
    return f"{one.get('attribute')} {one.get('operation')} {_quoted(one.get('value', ''))}"


def _primitive(item: Element) -> str:
    parts = [f"primitive {item.get('id')} {':'.join(item.get(word, '') for word in ('class', 'provider', 'type') if item.get(word))}"]
    parts += [f"params {' '.join(pairs)}" for group in item.iterfind("instance_attributes") if (pairs := _pairs(group))]
    parts += [_operation(one) for one in item.iterfind("operations/op")]
    return INDENT.join([*parts, *_metas(item)])


def _metas(item: Element) -> list[str]:
    return [f"meta {' '.join(pairs)}" for group in item.iterfind("meta_attributes") if (pairs := _pairs(group))]


def _operation(one: Element) -> str:
    settings = [f"{name}={_quoted(one.get(name, ''))}" for name in map(str, one.attrib) if name not in {"id", "name"}]
    return " ".join([f"op {one.get('name')}", *settings])


def _pairs(group: Element) -> list[str]:
    return [f"{pair.get('name')}={_quoted(pair.get('value', ''))}" for pair in group.iterchildren("nvpair")]


def _quoted(value: str) -> str:
    r"""Return a value as one word of crmsh.

    >>> print(_quoted("60s"), _quoted("a b"), _quoted('say "a\\b"'))
    60s "a b" "say \"a\\b\""
    """
    if re.fullmatch(r"[A-Za-z0-9_@%+:,./-]+", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _xml(item: Element) -> str:
    return etree.tostring(item, encoding="unicode", with_tail=False).strip()
