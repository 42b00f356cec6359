"""What config.ini and its template come to, for other tools than pcs: crmsh's words, or XML of the cluster's configuration.

There is one source, the template's pcs commands. pcs itself makes a CIB of them, and the other forms are derived from that CIB, so none of them
can say anything else than the others.
"""

from __future__ import annotations

import copy
import shlex
from typing import TYPE_CHECKING

from lxml import etree

from pha4pgsql import cib, crmsh, pcs

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

    from pha4pgsql.config import Config

PCS = {"pcs-0.11": (0, 11), "pcs-0.12": (0, 12)}
FORMS = ("pcs", *PCS, "crmsh", "cib")

APPLY = {"crmsh": "crm configure load update FILE", "cib": "cibadmin -M -c -o configuration -x FILE"}
"""How a form is applied to a running cluster; neither touches what is not in it. Short options: two hyphens cannot stand in a comment of XML."""


def render(settings: Config, form: str, edited: str = "") -> str:
    """Return one form. `edited` is the text of a config.pcs that somebody has tuned: the derived forms say what it says."""
    if form == "pcs" or form in PCS:
        return pcs.render(settings, pcs.TEMPLATES, PCS.get(form) or pcs.pcs_version())
    source = edited or pcs.render(settings, pcs.TEMPLATES, pcs.pcs_version())
    made = pcs.build(pcs.commands(source, "config.pcs"), "config.pcs")
    notes = _notes(settings, made, form)
    if form == "crmsh":
        return "".join(f"# {line}\n" for line in notes) + crmsh.configure(made)
    return "".join(f"<!-- {line.replace('--', '- -')} -->\n" for line in notes) + cib.write(_bare(made))


def _notes(settings: Config, made: Element, form: str) -> list[str]:
    """What somebody who applies it has to know."""
    notes = [f"made by pha4pgsql from config.ini and {settings.pcs_template}; apply it with: {APPLY[form]}"]
    if "stonith-enabled" not in cib.properties(made):
        notes.append("stonith-enabled is not set here: create a fencing device and set it to true; without a device nothing starts until it is false")
    tagged = [(node, pair) for node, pairs in settings.node_attributes.items() for pair in pairs]
    if tagged:
        notes.append("attributes of nodes are not in it; set them with:")
        notes += [f"  crm_attribute -N {node} -n {name} -v {shlex.quote(value)}" for node, (name, value) in tagged]
    notes.append("PostgreSQL is not started by it; cls_start does that")
    return notes


def _bare(made: Element) -> Element:
    """Return the configuration without what belongs to a cluster: versions, nodes and state. Its form stays that of a CIB, so crm_verify reads it."""
    versions = dict.fromkeys(("admin_epoch", "epoch", "num_updates"), "0")  # the schema wants them
    tree = etree.Element("cib", {"validate-with": made.get("validate-with", ""), **versions})
    tree.extend(copy.deepcopy(part) for part in made.iterfind("configuration"))
    for node in tree.iterfind("configuration/nodes"):
        node.clear()
    etree.SubElement(tree, "status")
    return tree
