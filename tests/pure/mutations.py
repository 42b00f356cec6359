"""What happens to the core when one guard is dropped or one order turned round: the targets of the simulator.

A mutation is caught when a story (stories.py) or a random run breaks a promise. Those that need a particular shape of cluster
name it (`where`); those that only make the cluster wait for ever are looked for by liveness (`live`).
What neither catches is listed with the reason why it does no harm: another guard covers it (`covered`).
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """Edits of the source, and where to look for the damage (settings whose name begins so; empty: all)."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    where: tuple[str, ...] = ()
    live: bool = False
    covered: str = ""


def _swap(module: str, text: str, one: str, other: str) -> tuple[str, str, str]:
    """Two actions of one list change places."""
    return (module, text, text.replace(one, "\0").replace(other, one).replace("\0", other))


PROMOTION = "[Store(state), Name(first), MakeSlots(slots_of(scene, ballot, followers)), Promote()]\n"
ANSWERED = "    steps: list[Action] = [Publish(my_vote(scene, answer=said))]\n"
POINTED = "        steps += [Store(await_timeline(scene.state, ballot, said.lsn, timelines(scene))), Follow(upstream)]\n"
READING = ("sync 3/1, 2 read", "quorum 3/1 strict, 2 read")
FOLLOWED = "    steps: list[Action] = [Store(state)] if state != scene.state else []\n"

HELD = ("shown", "else None if scene.state.mark else", "else")
"""The second guard of a data directory with a mark."""

CHANGE = ("members change",)
"""Where members change."""

MUTATIONS: tuple[Mutation, ...] = (
    Mutation("whoever holds nothing is as silent as half a copy", (("shown", "NOTHING if scene.state.given_up else None", "None"),)),
    Mutation("whoever holds nothing promises nothing", (("vote", "    if state.mark and not state.given_up:\n", "    if state.mark:\n"),)),
    Mutation(
        "answer without promise",
        (
            (
                "pgsql",
                "    scene = yield [Store(enrolled(scene, promised))]\n",
                "    scene = yield [Store(promised._replace(promised=scene.state.promised))]\n",
            ),
            ("pgsql", "end is None or scene.state.promised != ballot or", "end is None or"),
            ("pgsql", "isinstance(verdict, Elected) and scene.state.promised != ballot", "False and scene.state.promised != ballot"),
        ),
    ),
    Mutation(
        "promise not on disk",
        (
            ("pgsql", "    scene = yield [Store(enrolled(scene, promised))]\n", "    scene = yield []\n    scene = scene._replace(state=promised)\n"),
            ("pgsql", "    if isinstance(verdict, Elected) and scene.state.promised != ballot:\n", "    if False:\n"),
        ),
    ),
    Mutation(
        "promise forgotten when a primary is seen",
        (
            ("pgsql", "    if vote.reign < state.promised:\n        return Outcome", "    if False:\n        return Outcome"),
            ("pgsql", "in (None, wanted) and term >= scene.state.promised", "in (None, wanted)"),
        ),
    ),
    Mutation(
        "position read before the receiver is gone",
        (
            (
                "pgsql",
                "    refusal = promise(deposed(scene), ballot)\n",
                "    early = scene.instance.lsn\n    refusal = promise(deposed(scene), ballot)\n",
            ),
            ("pgsql", "    end = held(scene)\n    if end is None", "    end = early or held(scene)\n    if end is None"),
        ),
    ),
    Mutation(
        "receiver not waited for",
        (
            ("pgsql", "    while scene.instance.receiving and scene.left > MARGIN:\n        scene = yield []\n    promised =", "    promised ="),
            ("pgsql", "if isinstance(promised, str) or scene.instance.receiving or scene", "if isinstance(promised, str) or scene"),
        ),
    ),
    Mutation("any answer counts, whatever its ballot", (("vote", "vote.answer and vote.answer.ballot == ballot}", "vote.answer}"),)),
    Mutation(
        "one answer fewer", (("vote", "    if len(backing) >= rules.answers_needed and", "    if len(backing) >= rules.answers_needed - 1 and"),)
    ),
    Mutation(
        "one acknowledgement fewer",
        (
            (
                "standby_names",
                'return f"ANY {rules.confirming.k} ({others})"',
                'return f"ANY {rules.confirming.k - 1} ({others})" if rules.confirming.k > 1 else ""',
            ),
            (
                "standby_names",
                "    return with_outsiders(fixed_names(order[: rules.confirming.k]), ",
                "    return with_outsiders(quorum_names(rules, scene.me), ",
            ),
        ),
    ),
    Mutation("not the furthest", (("vote", "if not further(answer, answers[me])}", "}"),)),
    Mutation("furthest by LSN", (("vote", "    return (one.term, one.lsn) > (other.term, other.lsn)\n", "    return one.lsn > other.lsn\n"),)),
    Mutation(
        "furthest by (timeline, LSN)",
        (
            (
                "vote",
                "    return (one.term, one.lsn) > (other.term, other.lsn)\n",
                "    return (one.timeline, one.lsn) > (other.timeline, other.lsn)\n",
            ),
        ),
    ),
    Mutation(
        "furthest by term only", (("vote", "    return (one.term, one.lsn) > (other.term, other.lsn)\n", "    return one.term > other.term\n"),)
    ),
    Mutation(
        "a primary answers",
        (
            ("vote", "    if state.reign != NEVER:\n        return f", "    if False:\n        return f"),
            (
                "pgsql",
                '    if scene.instance.run in (Run.PRIMARY, Run.SILENT, Run.STOPPING):\n        return Outcome(False, f"PostgreSQL is {scene.instance.run.value}: only',
                '    if False:\n        return Outcome(False, f"PostgreSQL is {scene.instance.run.value}: only',
            ),
            ("pgsql", "or scene.instance.receiving or scene.instance.run is Run.PRIMARY:", "or scene.instance.receiving:"),
        ),
    ),
    Mutation("a candidate that has begun answers", (("vote", "    if state.reign != NEVER:\n        return f", "    if False:\n        return f"),)),
    Mutation(
        "the candidate does not bind itself",
        (
            ("pgsql", "    if isinstance(verdict, Elected) and scene.state.promised != ballot:\n", "    if False:\n"),
            ("vote", "    if higher:\n        return Lost", "    if False:\n        return Lost"),
        ),
    ),
    Mutation(
        "first election without all",
        (("vote", "    need = rules.answers_needed if override else len(rules.members)\n", "    need = rules.answers_needed\n"),),
        ("first",),
    ),
    Mutation("whoever has no term wins against one who has", (("vote", "    if answers[me].term == NEVER:  # what", "    if False:  # what"),)),
    Mutation("a standby with a stray history is not restarted", (("pgsql", "    if blocked:\n", "    if False:\n"),)),
    Mutation("rejoin unchecked", (("pgsql", "    if fork is not None:\n", "    if False:\n"),)),
    Mutation("rejoin by timeline and position only", (("vote", "held[common] == primary[common]:", "held[common][:2] == primary[common][:2]:"),)),
    Mutation(
        "rejoin although beyond the primary's next era",
        (("vote", "    if common < len(primary) and end > primary[common].start:\n", "    if False:\n"),),
    ),
    Mutation(
        "slots without term",
        (("sight", '    name = f"{prefix}_{term.round}_{slot_word(term.node)}_{slot_word(node)}"\n', '    name = f"{prefix}_{slot_word(node)}"\n'),),
        where=("quorum 5",),
    ),
    Mutation(
        "slots for everybody after the promotion",
        (
            (
                "duties",
                "    adopted = [node for node in scene.peers if any(era.term == term for era in scene.vote(node).eras)]\n",
                "    adopted = list(scene.peers)\n",
            ),
        ),
    ),
    Mutation(
        "two slots for a node",
        (
            (
                "pgsql",
                "        upstream = Upstream(ballot.node, slot_name(scene.rules.slot_prefix, ballot, scene.me))\n",
                "        upstream = Upstream(ballot.node, slot_name(scene.rules.slot_prefix + 'early', ballot, scene.me))\n",
            ),
            (
                "pgsql",
                PROMOTION,
                PROMOTION.replace(
                    "MakeSlots(slots_of(scene, ballot, followers))",
                    "MakeSlots(tuple(slot_name(scene.rules.slot_prefix + 'early', ballot, node) for node in followers))",
                ),
            ),
            (
                "sight",
                "follower.slot == slot_name(scene.rules.slot_prefix, scene.state.reign, follower.name)",
                "follower.slot.endswith(slot_name('', scene.state.reign, follower.name))",
            ),
        ),
    ),
    Mutation(
        "slots before the promotion for everybody who answered",
        (("pgsql", "if node != scene.me and given.lsn <= mine and cut(scene.vote(node).eras, given.lsn) == eras", "if node != scene.me"),),
    ),
    Mutation(
        "promotion before the state is stored",
        (("pgsql", PROMOTION, "[Name(first), MakeSlots(slots_of(scene, ballot, followers)), Promote(), Store(state)]\n"),),
    ),
    Mutation("promoted with an empty set", (("pgsql", PROMOTION, PROMOTION.replace("Name(first)", 'Name("")')),)),
    Mutation(
        "standby started with an empty set",
        (
            ("pgsql", "Launch(upstream, quorum_names(scene.rules, scene.me))", 'Launch(upstream, "")'),
            (
                "pgsql",
                "Publish(my_vote(scene._replace(state=state))), Launch(None, quorum_names(scene.rules, scene.me))",
                'Publish(my_vote(scene._replace(state=state))), Launch(None, "")',
            ),
        ),
    ),
    Mutation(
        "answer published before the promise is stored",
        (
            ("pgsql", "    scene = yield [Store(enrolled(scene, promised))]\n", "    scene = yield []\n"),
            ("pgsql", "or scene.state.promised != ballot or scene.instance.upstream", "or scene.instance.upstream"),
            (
                "pgsql",
                ANSWERED,
                "    steps: list[Action] = [Publish(my_vote(scene, answer=said)), Store(promised)]\n    scene = scene._replace(state=promised)\n",
            ),
        ),
    ),
    Mutation(
        "candidate followed before its pending term is stored",
        (
            (
                "pgsql",
                POINTED,
                POINTED.replace(
                    "[Store(await_timeline(scene.state, ballot, said.lsn, timelines(scene))), Follow(upstream)]",
                    "[Follow(upstream), Store(await_timeline(scene.state, ballot, said.lsn, timelines(scene)))]",
                ),
            ),
        ),
    ),
    Mutation("candidate followed without a pending term", (("pgsql", POINTED, "        steps += [Follow(upstream)]\n"),)),
    Mutation(
        "primary followed before its terms are stored",
        (
            (
                "pgsql",
                FOLLOWED + "    steps += [Follow(upstream)] if scene.instance.upstream != upstream else []\n",
                "    steps: list[Action] = [Follow(upstream)] if scene.instance.upstream != upstream else []\n    steps += [Store(state)] if state != scene.state else []\n",
            ),
        ),
    ),
    Mutation(
        "start: launched before the terms are stored",
        (
            (
                "pgsql",
                "    scene = yield [*([Store(state)] if state != scene.state else []), Launch(upstream, quorum_names(scene.rules, scene.me))]\n",
                "    scene = yield [Launch(upstream, quorum_names(scene.rules, scene.me)), *([Store(state)] if state != scene.state else [])]\n",
            ),
        ),
    ),
    Mutation(
        "promised not raised to the primary's term",
        (("pgsql", "state._replace(promised=max(state.promised, vote.reign), eras=vote.eras", "state._replace(eras=vote.eras"),),
        covered="a term is won by N-k promises, so no lower ballot can be won after it, whoever else has not promised; the WAL of the term answers for itself",
    ),
    Mutation("primary's terms not adopted", (("pgsql", "vote.reign), eras=vote.eras, pending=NEVER", "vote.reign), pending=NEVER"),)),
    Mutation(
        "demote leaves the reign",
        (
            (
                "pgsql",
                "        state = resolve(scene.state._replace(reign=NEVER), scene.instance)\n        scene = yield [Store(state), Publish",
                "        state = resolve(scene.state, scene.instance)\n        scene = yield [Store(state), Publish",
            ),
        ),
        live=True,
    ),
    Mutation(
        "demote without a restart of PostgreSQL",
        (
            (
                "pgsql",
                "    elif scene.instance.run is Run.STANDBY and scene.state.reign != NEVER:  # the promotion never happened: make sure that it cannot any more\n        scene = yield [Shutdown()]\n        return (yield from demote(scene))\n",
                "    elif scene.instance.run is Run.STANDBY and scene.state.reign != NEVER:\n        scene = yield [Store(scene.state._replace(reign=NEVER))]\n",
            ),
        ),
    ),
    Mutation(
        "follow with a promotion begun",
        (
            (
                "pgsql",
                '    if scene.state.reign != NEVER:\n        return Outcome(False, f"a promotion under',
                '    if False:\n        return Outcome(False, f"a promotion under',
            ),
        ),
    ),
    Mutation(
        "follow does not take the old upstream away first",
        (
            ("pgsql", "        scene = yield [Follow(None)]  # else", "        scene = yield []  # else"),
            (
                "pgsql",
                "        while scene.instance.receiving and scene.left > MARGIN:\n            scene = yield []\n        scene = yield []  #",
                "        scene = yield []  #",
            ),
            (
                "pgsql",
                "        if scene.instance.receiving or scene.instance.run is not Run.STANDBY:\n",
                "        if scene.instance.run is not Run.STANDBY:\n",
            ),
        ),
    ),
    Mutation(
        "eras not resolved when answering",
        (
            (
                "pgsql",
                "    promised = promise(resolve(deposed(scene), scene.instance), ballot)\n",
                "    promised = promise(deposed(scene), ballot)\n",
            ),
            ("pgsql", "    if named != scene.state:  # its", "    if False:  # its"),
        ),
    ),
    Mutation(
        "a ballot is used again after its reign",
        (
            ("pgsql", "    if ballot in (era.term for era in scene.state.eras):\n", "    if False:\n"),
            ("pgsql", "    if isinstance(verdict, Elected) and scene.instance.lsn != ", "    if False and scene.instance.lsn != "),
        ),
    ),
    Mutation("a timeline of no election has the last term", (("vote", "        return _without_term(state, instance)\n", "        return state\n"),)),
    Mutation(
        "what no election made counts to its end",
        (("shown", "    return min(end, stray.start) if stray and end is not None else end\n", "    return end\n"),),
    ),
    Mutation("eras beyond the own end are kept", (("vote", "pending=term, eras=cut(state.eras, end), beyond", "pending=term, beyond"),)),
    Mutation("old timelines are taken for the new one", (("vote", "    known = max(known, state.beyond)\n", ""),)),
    Mutation(
        "start forgets what was promised meanwhile",
        (
            (
                "pgsql",
                "    scene = yield from set_attributes(scene, gone)\n    if scene.instance.run is not Run.DOWN or",
                "    stale = scene.state\n    scene = yield from set_attributes(scene, gone)\n    if scene.instance.run is not Run.DOWN or",
            ),
            (
                "pgsql",
                "(resolve(scene.state, scene.instance), None) if isinstance(adopted, Outcome) else adopted",
                "(resolve(stale, scene.instance), None) if isinstance(adopted, Outcome) else adopted",
            ),
        ),
    ),
    Mutation(
        "a data directory with a mark answers",
        (("vote", "    if state.mark and not state.given_up:\n        return f", "    if False:\n        return f"), HELD),
    ),
    Mutation(
        "a data directory with a mark is started",
        (
            ("pgsql", "    if scene.state.mark:\n        return Outcome(False, unwhole(scene))\n    gone", "    gone"),
            ("pgsql", "    if scene.instance.run is not Run.DOWN or scene.state.mark:\n", "    if scene.instance.run is not Run.DOWN:\n"),
            (
                "pgsql",
                "    if scene.state.mark:\n        return Outcome(False, unwhole(scene))\n    scene = yield from settle",
                "    scene = yield from settle",
            ),
            ("pgsql", "    unfit = unwhole(scene) or unruled(scene)", "    unfit = unruled(scene)"),
            ("vote", "    if state.mark and not state.given_up:\n        return f", "    if False:\n        return f"),
            HELD,
        ),
    ),
    Mutation(
        "a copy of a primary below the promise",
        (("copying", '    if vote.reign < state.promised:\n        return f"', '    if False:\n        return f"'),),
    ),
    Mutation("a copy under the terms of before", (("copying", "new = under(state, vote)._replace(mark=mark)", "new = state._replace(mark=mark)"),)),
    Mutation(
        "the answer of a node without its state file counts",
        (("vote", "    answers = {node: answer for node, answer in answers.items() if node not in lost}\n", ""),),
    ),
    Mutation(
        "a rewind where timeline numbers lie",
        (("copying", "    if rewind and not rewindable(state.eras, instance.lsn or Lsn(0), vote.eras):\n", "    if False:\n"),),
        where=("sync 2/1",),
    ),
    Mutation(
        "a copy is trusted whatever it holds",
        (("copying", "        if timeline > max(starts, default=0) or starts.get(timeline, start) != start:\n", "        if False:\n"),),
        covered="the slot of the term proves to the end that the source reigned by it; this guards a copy that was taken from a standby",
    ),
    Mutation(
        "the remains of a copy show a position",
        (HELD,),
        covered="by positions that are shown only scores are given; an election needs answers, and these are refused",
    ),
    # -- alone
    Mutation(
        "alone: one voice fewer",
        (("duties", "scene.rules, scene.row) > scene.rules.confirming.k:", "scene.rules, scene.row) >= scene.rules.confirming.k:"),),
    ),
    Mutation("alone: stored in spite of a higher promise", (("vote", "or statement.term < state.promised or", "or"),)),
    Mutation(
        "alone: stored without promising",
        (("vote", "said=statement, promised=max(state.promised, statement.term)", "said=statement"),),
        covered="as above; and a voice is no primary, so it overwrites nothing with an older word of its own (with that: the last mutation of this table)",
    ),
    Mutation(
        "alone: not inherited",
        (("pgsql", "    said = Statement(ballot, 1, scene.me) if verdict.inherits else scene.state.said\n", "    said = scene.state.said\n"),),
    ),
    Mutation(
        "alone: left before k have caught up",
        (
            (
                "duties",
                "        if position is not None and confirmed(scene, position) >= scene.rules.confirming.k:\n            spoken",
                "        if True:\n            spoken",
            ),
        ),
    ),
    Mutation(
        "alone: left by a position of before it was alone again",
        (
            (
                "duties",
                "    while _ground(scene) == ground and scene.elapsed <= until:\n        if position is None",
                "    while scene.elapsed <= until:\n        if position is None",
            ),
        ),
    ),
    Mutation(
        "alone: left before the set is in force",
        (("duties", "        if position is None and in_force(scene):\n", "        if position is None:\n"),),
        covered="without standbys outside of the cluster every set of before asks for k members too (test_member enumerates the mixtures)",
    ),
    Mutation(
        "alone: not said anew when the set leaves it",
        (("duties", "            spoken = store(scene.state, _statement(scene, me)) if alone else None\n", "            spoken = None\n"),),
    ),
    Mutation("alone: the owner's answer is not asked", (("vote", " and (not newest.owner or newest.owner in backing):", ":"),)),
    Mutation(
        "alone: a primary stores others' statements",
        (("vote", "or (state.reign != NEVER and not own)", ""),),
        covered="it then sees its own promise above its term, so it says nothing any more and is demoted; what it says of an older term is not newer",
    ),
    Mutation(
        "alone: an older statement is stored", (("vote", "    if statement.number <= state.said.number or", "    if statement == state.said or"),)
    ),
    Mutation(
        "alone: without any statement",
        (
            (
                "duties",
                "    if stored_by(scene.state.said, dict(scene.votes), scene.rules, scene.row) > scene.rules.confirming.k:\n",
                "    if True:\n",
            ),
        ),
    ),
    Mutation(
        "back from alone straight to the set",
        (("duties", "            scene = yield [*told, Name(NOBODY)]\n", "            scene = yield [*told, Name(choose_names(scene))]\n"),),
    ),
    Mutation("back from alone without seeing a commit wait", (("duties", "            if scene.instance.proven:\n", "            if True:\n"),)),
    Mutation(
        "voice published before it is stored",
        (
            (
                "pgsql",
                "        scene = yield [Store(stored), Publish(my_vote(scene._replace(state=stored)))]\n",
                "        scene = yield [Publish(my_vote(scene._replace(state=stored))), Store(stored)]\n",
            ),
        ),
    ),
    Mutation(
        "an outvoted primary stays",
        (
            ("duties", "    if _outvoted(scene):\n        return (yield from _abdicate(scene))\n    if unruled", "    if unruled"),
            ("duties", "    if _outvoted(scene):  # the row", "    if False:  # the row"),
        ),
        live=True,
    ),
    # -- the row of the distributed lock
    Mutation(
        "row: not asked by the candidate", (("vote", "    if heard >= rules.voices_needed:\n", "    if heard >= rules.voices_needed - rules.row:\n"),)
    ),
    Mutation(
        "row: its silence is a yes",
        (("vote", "sum(voice.promised == ballot for voice in _heard_row(rules, row))", "(rules.row and (row is None or row.promised == ballot))"),),
    ),
    Mutation(
        "row: an answer to an older ballot counts",
        (("vote", "sum(voice.promised == ballot for voice in _heard_row(rules, row))", "len(_heard_row(rules, row))"),),
    ),
    Mutation(
        "row: the candidate does not look at its statement",
        (("vote", "    newest = newest_statement((*heard.values(), *_heard_row(rules, row)))\n", "    newest = newest_statement(heard.values())\n"),),
    ),
    Mutation(
        "row: counted twice",
        (
            (
                "vote",
                "in rules.confirming.members if node in votes), *_heard_row(rules, row)]\n",
                "in rules.confirming.members if node in votes), *_heard_row(rules, row) * 2]\n",
            ),
        ),
    ),
    Mutation(
        "row: its silence counts as stored",
        (
            (
                "vote",
                "    return sum(1 for voice in voices if voice.said == statement)\n",
                "    return sum(1 for voice in voices if voice.said == statement) + (rules.row and row is None)\n",
            ),
        ),
    ),
    Mutation(
        "row: what it has stored counts, whatever it is",
        (
            (
                "vote",
                "    return sum(1 for voice in voices if voice.said == statement)\n",
                "    return sum(1 for voice in voices if voice.said == statement or voice is row)\n",
            ),
        ),
    ),
    Mutation("row: its promise ends no reign", (("vote", "    highest = max(highest, row.promised) if row is not None else highest\n", ""),)),
    Mutation("row: the next round is not above its promise", (("shown", ", *([scene.row] if scene.row is not None else [])]\n", "]\n"),)),
    Mutation("row: a standby stands without looking at it", (("pgsql", "    if _needs_row(scene):\n", "    if False:\n"),)),
    # -- steps turned round
    Mutation(
        "slots before the reign is stored",
        (
            (
                "pgsql",
                PROMOTION,
                PROMOTION.replace(
                    "Store(state), Name(first), MakeSlots(slots_of(scene, ballot, followers))",
                    "Name(first), MakeSlots(slots_of(scene, ballot, followers)), Store(state)",
                ),
            ),
        ),
    ),
    Mutation(
        "slots after the promotion was asked for",
        (
            (
                "pgsql",
                PROMOTION,
                PROMOTION.replace("MakeSlots(slots_of(scene, ballot, followers)), ", "").replace(
                    "Promote()]", "Promote(), MakeSlots(slots_of(scene, ballot, followers))]"
                ),
            ),
        ),
        covered="a follower without its slot waits; nobody is let in too early",
    ),
    Mutation(
        "set named after the promotion was asked for",
        (("pgsql", PROMOTION, PROMOTION.replace("Name(first), ", "").replace("Promote()", "Promote(), Name(first)")),),
        covered="a standby runs with ANY k (all others) from its start, which is in force at the promotion; which k of them is of no matter",
    ),
    Mutation(
        "not alone: published before it is stored",
        (
            (
                "duties",
                "            scene = (yield [Store(spoken), Publish(my_vote(scene._replace(state=spoken)))]) if spoken else scene\n",
                "            scene = (yield [Publish(my_vote(scene._replace(state=spoken))), Store(spoken)]) if spoken else scene\n",
            ),
        ),
    ),
    Mutation(
        "alone: published before it is stored",
        (
            (
                "duties",
                "                scene = yield [Store(spoken), Publish(my_vote(scene._replace(state=spoken)))]\n            else:",
                "                scene = yield [Publish(my_vote(scene._replace(state=spoken))), Store(spoken)]\n            else:",
            ),
        ),
        covered="others then hold 'alone', which makes elections harder, never easier; the next statement of this primary has the same number and the same content",
    ),
    Mutation(
        "alone: set emptied before it is said anew",
        (("duties", "            scene = yield [*told, Name(NOBODY)]\n", "            scene = yield [Name(NOBODY), *told]\n"),),
    ),
    Mutation(
        "demote: launched before the reign is ended",
        (
            (
                "pgsql",
                "        scene = yield [Store(state), Publish(my_vote(scene._replace(state=state))), Launch(None, quorum_names(scene.rules, scene.me))]\n",
                "        scene = yield [Launch(None, quorum_names(scene.rules, scene.me)), Store(state), Publish(my_vote(scene._replace(state=state)))]\n",
            ),
        ),
        covered="a standby whose file says that it reigns answers nothing and follows nobody; it is demoted once more",
    ),
    # -- guards
    Mutation(
        "promoted although the end of WAL is not the answered one",
        (("pgsql", "    if isinstance(verdict, Elected) and scene.instance.lsn != ", "    if False and scene.instance.lsn != "),),
        covered="nobody moves the WAL of a member between its answer and a higher promise: its receiver is gone, and what it follows is bound by the promise",
    ),
    Mutation(
        "promoted although WAL may still arrive",
        (
            (
                "pgsql",
                "    if isinstance(verdict, Elected) and (scene.instance.upstream is not None or scene.instance.receiving):\n",
                "    if False:\n",
            ),
        ),
        covered="the same: the answer was given without a receiver and without an upstream, a new upstream needs a promise that ends this attempt",
    ),
    Mutation(
        "promoted although another ballot is promised",
        (("pgsql", "    if isinstance(verdict, Elected) and scene.state.promised != ballot:\n", "    if False:\n"),),
    ),
    Mutation(
        "promoted although a higher promise is visible",
        (("vote", "    if higher:\n        return Lost", "    if False:\n        return Lost"),),
        covered="it saves a useless promotion, no commit: who has promised higher confirms nothing to the lower term, and the own promise is checked apart",
    ),
    Mutation(
        "answered although another ballot was promised meanwhile",
        (("pgsql", "end is None or scene.state.promised != ballot or", "end is None or"),),
        covered="the promise stands in the same vote as the answer, and the candidate gives up when it sees it",
    ),
    Mutation(
        "answered although an upstream was set meanwhile",
        (("pgsql", "or scene.state.promised != ballot or scene.instance.upstream is not None:", "or scene.state.promised != ballot:"),),
        covered="an upstream is set together with the promise of its term: either that is another ballot, or the candidate was promoted already",
    ),
    Mutation(
        "answered while starting with an upstream",
        (("pgsql", "    if scene.instance.run is Run.STARTING and scene.instance.upstream is not None:\n", "    if False:\n"),),
    ),
    Mutation("candidate followed although remains of a newer timeline are here", (("pgsql", " and not strays(scene):", ":"),)),
    Mutation(
        "follower further than the candidate",
        (("pgsql", "if node != scene.me and given.lsn <= mine and cut", "if node != scene.me and cut"),),
        covered="PostgreSQL itself refuses a start beyond the switch point, and here the numbers tell the truth because the terms are equal",
    ),
    Mutation("follower of other terms", (("pgsql", "given.lsn <= mine and cut(scene.vote(node).eras, given.lsn) == eras", "given.lsn <= mine"),)),
    Mutation(
        "a stopped primary reigns for ever",
        (("pgsql", "return scene.state._replace(reign=NEVER) if scene.instance.run is Run.DOWN else scene.state", "return scene.state"),),
        covered="it only does not answer from its disk; start and demote end the reign",
    ),
    Mutation(
        "start leaves the reign",
        (("pgsql", "    state = enrolled(scene, state._replace(reign=NEVER))\n", "    state = enrolled(scene, state)\n"),),
        covered="its monitor fails, and it is demoted",
    ),
    Mutation(
        "an outvoted candidate goes on waiting",
        (
            (
                "pgsql",
                '        if higher or scene.instance.run is not Run.PRIMARY:\n            return Outcome(False, f"term',
                '        if scene.instance.run is not Run.PRIMARY:\n            return Outcome(False, f"term',
            ),
        ),
        covered="it only wastes the rest of its time: nobody confirms anything to it",
    ),
    Mutation(
        "alone: primaries store, without promising, their own older word over it",
        (
            ("vote", "or (state.reign != NEVER and not own)", ""),
            ("vote", "said=statement, promised=max(state.promised, statement.term)", "said=statement"),
            ("vote", "    if statement.number <= state.said.number or", "    if statement == state.said or"),
        ),
    ),
    Mutation(
        "readers answer, and count",
        (
            ("pgsql", "    if scene.only_reads:\n        return Outcome(True)\n    if stranger", "    if stranger"),
            ("vote", "    heard = {node: vote for node, vote in heard.items() if node in rules.members}\n", ""),
        ),
        where=READING,
    ),
    Mutation(
        "readers answer, and nobody counts it",
        (("pgsql", "    if scene.only_reads:\n        return Outcome(True)\n    if stranger", "    if stranger"),),
        covered="an election counts the answers of node_list only (vote.elect)",
    ),
    Mutation(
        "readers confirm",
        (("sight", "if follower.name in scene.others and is_bound", "if is_bound"),),
        covered="confirmations count of those only who are in the list of members (pgsql.confirmed, pgsql.reachable)",
    ),
    Mutation(
        "readers are named",
        (
            (
                "standby_names",
                'for node in nodes or rules.confirming.members if node != me)\n    return f"ANY',
                'for node in (*(nodes or rules.confirming.members), *rules.readers) if node != me)\n    return f"ANY',
            ),
        ),
        where=READING,
    ),
    Mutation(
        "readers are voices",
        (
            ("pgsql", "    if scene.only_reads:\n        return Outcome(True)\n    before", "    before"),
            ("vote", "    voices = [*(votes[node] for node in rules.confirming.members if node in votes), *", "    voices = [*votes.values(), *"),
        ),
        where=READING,
    ),
    Mutation(
        "readers are promoted",
        (
            (
                "pgsql",
                '    if scene.only_reads:\n        yield attributes(scene, {(scene.me, "score"): "-INFINITY"})\n        return',
                "    if False:\n        return",
            ),
            ("pgsql", "    if scene.only_reads:\n        return Outcome(True)\n    if stranger(scene):\n", "    if False:\n"),
            ("vote", "for node, vote in heard.items() if node in rules.members}", "for node, vote in heard.items() if node in (*rules.members, me)}"),
            ("vote", "    if me not in rules.confirming.members:\n", "    if False:\n"),
        ),
        where=READING,
    ),
    Mutation(
        "nosync leaves fewer than k names",
        (
            ("sight", "    return wanted if len(wanted) >= scene.rules.confirming.k else others\n", "    return wanted\n"),
            (
                "standby_names",
                'for node in nodes or rules.confirming.members if node != me)\n    return f"ANY',
                'for node in nodes if node != me)\n    return f"ANY',
            ),
        ),
    ),
    Mutation(
        "a wish makes the set smaller",
        (
            (
                "standby_names",
                "    return with_outsiders(fixed_names(order[: rules.confirming.k]), ",
                "    return with_outsiders(fixed_names(order[: 1 if wish else rules.confirming.k]), ",
            ),
        ),
        where=("sync 5/2",),
    ),
    Mutation(
        "a wish names a standby that does not stream",
        (("standby_names", "    order = sorted(streaming, key", "    order = sorted(streaming | ({wish.target} if wish else set()), key"),),
        covered="nobody confirms in its place: commits wait, and none is acknowledged with fewer copies",
    ),
    Mutation(
        "the old primary's last record is not looked for",
        (("pgsql", "        if end > mine and term_at(scene.vote(node).eras, end) == scene.state.eras[-1].term:\n", "        if False:\n"),),
        covered="what the elected target lacks was confirmed to nobody; the old primary would have to be rewound, no more",
    ),
    Mutation(
        "the old primary's last word is awaited after the election",
        (
            (
                "pgsql",
                "    scene = yield from _last_word(scene)\n    scene, verdict = yield from _campaign(scene, ballot)\n",
                "    scene, verdict = yield from _campaign(scene, ballot)\n    scene = yield from _last_word(scene)\n",
            ),
        ),
        covered="no answer is given while the executor promotes; a statement that pgwatch stores meanwhile is of a primary whose voters confirm nothing here",
    ),
    # -- members
    Mutation(
        "members: the set names the newcomer before the lists are stored",
        (("vote", "    if waiting:\n", "    if waiting and not roster.joint:\n"),),
        CHANGE,
    ),
    Mutation(
        "members: a change is begun before the one before is stored",
        (("vote", "    if waiting:\n", "    if waiting and roster.joint:\n"),),
        covered="the next middle fits the middle and the end of the change before (test_member enumerates it), and the list after it is what has to wait, "
        "and does",
    ),
    Mutation(
        "members: without the middle", (("vote", "*((change, change) if roster.joint else joined(roster.elects, change))", "change, change"),), CHANGE
    ),
    Mutation(
        "members: the middle with the halves turned round",
        (
            ("vote", "    return elects, Circle(common", "    return Circle(common"),
            ("vote", "one.strict or other.strict)\n\n\ndef next_circle", "one.strict or other.strict), elects\n\n\ndef next_circle"),
        ),
        CHANGE,
    ),
    Mutation(
        "members: lists before the set without the leaver is in force",
        (("duties", "        caught_up = not scene.state.roster.joint or not synchronous(scene.rules)\n", "        caught_up = True\n"),),
        CHANGE,
    ),
    Mutation(
        "members: walsenders not looked at",
        (("standby_names", " and not unknown and all(row.priority == places.get(row.name, 0) for row in rows)\n", "\n"),),
        CHANGE,
    ),
    Mutation(
        "members: the postmaster not looked at",
        (("standby_names", "    return instance.names_shown == instance.names and not unknown", "    return not unknown"),),
        CHANGE,
    ),
    Mutation(
        "members: the set of the change is an ordinary one",
        (
            ("standby_names", "        return step_names(k, inside)\n", "        return quorum_names(scene.rules, scene.me)\n"),
            ("standby_names", "row.priority == places.get(row.name, 0)", "(row.priority > 0) == (row.name in places)"),
        ),
        CHANGE,
    ),
    Mutation(
        "members: a change begins before the set of the one before is in force",
        (
            ("standby_names", " and names == choose_names(scene) and in_force(scene)\n", " and names == choose_names(scene)\n"),
            ("standby_names", "for place in range(2, number + 1)", "for place in range(2, 2)"),
        ),
        CHANGE,
    ),
    Mutation(
        "members: a walsender without a position counts as one that has read the set",
        (("standby_names", "instance.names_shown == instance.names and not unknown and all(", "instance.names_shown == instance.names and all("),),
        CHANGE,
    ),
    Mutation(
        "members: promoted with the set of before k was raised",
        (
            (
                "pgsql",
                '    if number_in(scene.instance.names_shown or "") < number_in(first):',
                '    if number_in(scene.instance.names_shown or "") < 0:',
            ),
        ),
        CHANGE,
    ),
    Mutation(
        "members: k not waited for",
        (
            (
                "duties",
                "        if position is not None and confirmed(scene, position) >= scene.rules.confirming.k:\n            return scene, True\n",
                "        if position is not None:\n            return scene, True\n",
            ),
        ),
        CHANGE,
    ),
    Mutation(
        "members: position of before the set was in force",
        (
            (
                "duties",
                "    ground, position = _ground(scene), None\n    while scene.elapsed <= until and _ground(scene) == ground and scene.instance.names == choose_names(scene) and in_force(scene):\n",
                "    ground, position = _ground(scene), scene.instance.lsn\n    while not in_force(scene) and scene.elapsed <= until:\n        scene = yield []\n    while scene.elapsed <= until and _ground(scene) == ground and scene.instance.names == choose_names(scene) and in_force(scene):\n",
            ),
        ),
        CHANGE,
    ),
    Mutation(
        "members: changed while alone",
        (
            ("vote", "    if state.said.owner and state.said.term == state.reign:\n", "    if False:\n"),
            (
                "duties",
                "        caught_up = not scene.state.roster.joint or not synchronous(scene.rules)\n",
                "        caught_up = scene.instance.names == '' or not scene.state.roster.joint\n",
            ),
            (
                "standby_names",
                "    if not synchronous(scene.rules):\n        return True\n    names",
                "    if scene.instance.names == '':\n        return True\n    names",
            ),
            ("pgsql", "    return new if scene.only_reads else store(new, vote.said) or new, upstream", "    return new, upstream"),
        ),
        CHANGE,
    ),
    Mutation(
        "members: changed while alone is said",
        (("vote", "    if state.said.owner and state.said.term == state.reign:\n", "    if False:\n"),),
        covered="the middle of the change at most: its set is not in force while alone, so it goes no further; and elections by the middle meet any "
        "k+1 of the members of before, since they are the harder ones",
    ),
    Mutation(
        "members: alone by voices of those who only elect",
        (("vote", "voices = [*(votes[node] for node in rules.confirming.members if", "voices = [*(votes[node] for node in rules.members if"),),
        CHANGE,
    ),
    Mutation(
        "members: the primary leaves",
        (("vote", "    able_to_leave = [node for node in leavers if node != me]\n", "    able_to_leave = leavers\n"),),
        CHANGE,
    ),
    Mutation(
        "members: a candidate counts by its own list, whatever the answers show",
        (("vote", "    rules = rules.under(roster)\n    higher", "    roster = rules.roster\n    higher"),),
        CHANGE,
    ),
    Mutation("members: one that may not confirm stands", (("vote", "    if me not in rules.confirming.members:\n", "    if False:\n"),), CHANGE),
    Mutation(
        "members: answers of strangers count",
        (("vote", "    heard = {node: vote for node, vote in heard.items() if node in rules.members}\n", ""),),
        CHANGE,
    ),
    Mutation(
        "members: confirmations of strangers count", (("duties", "if follower.name in members and follower.flush", "if follower.flush"),), CHANGE
    ),
    Mutation(
        "members: a list is stored in spite of a higher promise",
        (("vote", "    if not newer or roster.term < state.promised or", "    if not newer or"),),
        covered="who has promised higher confirms nothing to that primary any more, and a candidate counts by its own list as it is then",
    ),
    Mutation(
        "members: a list is stored without promising",
        (
            (
                "vote",
                "    return state._replace(roster=roster, promised=max(state.promised, roster.term))\n",
                "    return state._replace(roster=roster)\n",
            ),
        ),
        covered="as above",
    ),
    Mutation(
        "members: an older list is stored",
        (("vote", "roster.number > state.roster.number or not", "roster.number != state.roster.number or not"),),
        CHANGE,
    ),
    Mutation(
        "members: the elected one keeps the number of the list",
        (("pgsql", "    roster = verdict.roster._replace(term=ballot, count=0)", "    roster = verdict.roster"),),
        CHANGE,
        live=True,
    ),
    Mutation(
        "members: the elected one keeps its own list",
        (("pgsql", "    roster = verdict.roster._replace(term=ballot, count=0)", "    roster = scene.state.roster._replace(term=ballot, count=0)"),),
        covered="lists of members are one step apart at most, and two neighbours fit; its number is the newest all the same",
    ),
    Mutation(
        "members: list published before it is stored",
        (
            (
                "duties",
                "        state = scene.state._replace(roster=step)\n        scene = yield [Store(state), Publish(my_vote(scene._replace(state=state)))]\n",
                "        state = scene.state._replace(roster=step)\n        scene = yield [Publish(my_vote(scene._replace(state=state))), Store(state)]\n",
            ),
        ),
        covered="what it showed comes back to it with the votes, its own first, before it makes another list",
    ),
    Mutation(
        "members: a newcomer answers ballots that do not concern it", (("pgsql", "    if stranger(scene):\n", "    if False:\n"),), CHANGE, live=True
    ),
    Mutation(
        "members: too few voices because members leave",
        (("vote", "    return missing if len(voices) <= roster.confirms.k else [", "    return ["),),
        CHANGE,
    ),
    Mutation(
        "members: several leave at once",
        (("vote", "if node != able_to_leave[0]))", "if node not in able_to_leave))"),),
        covered="the middle fits any two lists that have more than k members in common (test_member enumerates them); one at a time keeps its elections "
        "from becoming harder than they need to be",
    ),
    Mutation(
        "members: a newcomer need not stream",
        (("vote", "    welcome = [node for node in joiners if node in ready]\n", "    welcome = joiners\n"),),
        covered="it loses nothing; but elections would need the answer of a node that may never come",
    ),
)
