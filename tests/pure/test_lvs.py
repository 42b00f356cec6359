"""Who should serve reads: every source of the list, every way to leave and to come back, and the order of the edits."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest

from pha4pgsql import lvs, lvs_settings
from pha4pgsql.lvs_words import (
    AddServer,
    AddService,
    Configuration,
    Decision,
    DeleteServer,
    Entry,
    Evidence,
    Health,
    Load,
    Memory,
    Method,
    Observation,
    Peer,
    Post,
    RealServer,
    Replica,
    Service,
    SetServer,
    SetService,
    Unknown,
    View,
)

SERVICE = Service("192.168.0.237", 5432)
PLAIN = Configuration(SERVICE, 5432, resource="lvsdr-realsvr-clone", attribute="pgsql-status", pattern="HS:sync|HS:potential|HS:async")
ADDRESS = {"node1": "192.168.0.231", "node2": "192.168.0.232", "node3": "192.168.0.233", "node4": "192.168.0.234"}
ALIVE, DEAD, SILENT = Evidence(Health.ALIVE), Evidence(Health.DEAD, "connection refused"), Evidence(Health.SILENT, "says nothing")
VALUES = {Post.PRIMARY: "PRI", Post.STANDBY: "HS:async", Post.NONE: "STOP"}


def peer(name: str, post: Post, value: str | None = None, *, online: bool = True) -> Peer:
    """A node as it usually looks in a role."""
    return Peer(name, online, post is Post.STANDBY, VALUES[post] if value is None else value, post)


HEALTHY = View((peer("node1", Post.PRIMARY), peer("node2", Post.STANDBY, "HS:sync"), peer("node3", Post.STANDBY)))
NO_PRIMARY = View((peer("node1", Post.NONE), peer("node2", Post.STANDBY, "HS:alone"), peer("node3", Post.STANDBY, "HS:alone")))


class Director:
    """A director with a table in memory, which looks again and again at what the test shows it."""

    def __init__(self, configuration: Configuration = PLAIN, view: View | Unknown = HEALTHY) -> None:
        self.configuration, self.view, self.now = configuration, view, 100.0
        self.memory = Memory()
        self.service: Service | None = None
        self.table: dict[str, Entry] = {}
        self.evidence = dict.fromkeys(ADDRESS.values(), ALIVE)
        self.addresses = {**ADDRESS, **{address: address for address in ADDRESS.values()}}
        self.listed: tuple[str, ...] | Unknown = Unknown("not asked")
        self.checked: dict[str, bool | Unknown] = {}
        self.replicas: tuple[Replica, ...] | Unknown = Unknown("not asked")

    def look(self, seconds: float = 0.5) -> Decision:
        """One look, `seconds` after the last; its edits are carried out."""
        self.now += seconds
        seen = Observation(
            self.view, self.listed, self.checked, self.replicas, self.evidence, self.addresses, self.service, tuple(self.table.values())
        )
        decision = lvs.decide(self.configuration, self.memory, seen, self.now)
        self.memory = decision.memory
        for edit in decision.edits:
            if isinstance(edit, (AddService, SetService)):
                self.service = edit.service
            elif isinstance(edit, DeleteServer):
                del self.table[edit.server.address]
            elif isinstance(edit, (AddServer, SetServer)):
                load = self.table[edit.server.address].load if edit.server.address in self.table else Load()
                self.table[edit.server.address] = Entry(edit.server, load)
        return decision

    def weights(self) -> dict[str, int]:
        """The table, by node."""
        names = {address: name for name, address in ADDRESS.items()}
        return {names[address]: entry.server.weight for address, entry in sorted(self.table.items())}

    def busy(self, node: str, active: int = 1) -> None:
        entry = self.table[ADDRESS[node]]
        self.table[ADDRESS[node]] = entry._replace(load=Load(active))

    def show(self, node: str, evidence: Evidence) -> None:
        self.evidence[ADDRESS[node]] = evidence


def healthy(configuration: Configuration = PLAIN) -> Director:
    """A director whose pool is node2 and node3, long after any change."""
    director = Director(configuration)
    director.look()
    director.look(lvs.SETTLE + 1)
    assert director.weights() == {"node2": 1, "node3": 1}
    return director


# -- the ordinary course


def test_the_first_look_fills_the_service() -> None:
    """Service first, then the standbys that are ready; the primary is none of them."""
    director = Director()
    decision = director.look()
    assert decision.edits == (
        AddService(SERVICE), AddServer(SERVICE, RealServer(ADDRESS["node2"], 5432)), AddServer(SERVICE, RealServer(ADDRESS["node3"], 5432)),
    )  # fmt: skip
    assert decision.names == {ADDRESS["node2"]: "node2", ADDRESS["node3"]: "node3"}


def test_an_unchanged_wish_sends_nothing_and_says_nothing() -> None:
    """However often it looks."""
    director = healthy()
    for _ in range(5):
        decision = director.look()
        assert (decision.edits, decision.lines) == ((), ())


def test_a_new_standby_joins_and_a_change_says_why() -> None:
    """Old, new and the reason are in the log."""
    director = healthy()
    director.view = HEALTHY._replace(peers=(*HEALTHY.peers, peer("node4", Post.STANDBY)))
    decision = director.look()
    assert director.weights() == {"node2": 1, "node3": 1, "node4": 1}
    ((level, line),) = decision.lines
    assert level == "INFO"
    assert all(word in line for word in ("node4", ADDRESS["node4"], "absent -> weight 1"))


# -- failover


def test_a_failover_never_empties_the_pool() -> None:
    """The primary dies, standbys lose their upstream, one is promoted, the other one reconnects: the other one serves all the time."""
    director = healthy()
    director.show("node1", DEAD)
    for view in (
        HEALTHY,
        NO_PRIMARY,
        View((peer("node1", Post.NONE, online=False), peer("node2", Post.PRIMARY, "HS:alone"), peer("node3", Post.STANDBY, "HS:alone"))),
        View((peer("node1", Post.NONE, online=False), peer("node2", Post.PRIMARY), peer("node3", Post.STANDBY, "HS:alone"))),
    ):
        director.view = view
        for _ in range(4):
            director.look()
            assert director.weights()["node3"] == 1
            assert ("node2" in director.weights()) == (view.peers[1].post is Post.STANDBY)
    director.view = View((peer("node1", Post.NONE, online=False), peer("node2", Post.PRIMARY), peer("node3", Post.STANDBY)))
    director.look(lvs.SETTLE + 1)
    assert director.weights() == {"node3": 1}


def test_who_is_promoted_leaves_at_once_with_its_connections() -> None:
    """No drain: a read on the primary is what must not be."""
    director = healthy()
    director.busy("node2")
    director.view = View((peer("node1", Post.NONE, online=False), peer("node2", Post.PRIMARY), peer("node3", Post.STANDBY)))
    assert director.look().edits == (DeleteServer(SERVICE, RealServer(ADDRESS["node2"], 5432)),)


def test_who_has_lost_the_virtual_address_leaves_before_the_promotion() -> None:
    """The cluster takes the address from the candidate first, with no primary to be seen yet: what is sent there would be lost."""
    director = healthy()
    director.busy("node2")
    candidate = peer("node2", Post.STANDBY, "HS:alone")._replace(candidate=False)
    director.view = View((peer("node1", Post.NONE), candidate, peer("node3", Post.STANDBY, "HS:alone")))
    director.look()
    assert director.weights() == {"node3": 1}
    director.show("node3", DEAD)
    director.look()
    assert director.weights() == {}


def test_a_primary_whose_port_is_dead_is_no_primary() -> None:
    """The CIB calls it promoted for a while after its death; the standbys' attributes tell nothing then."""
    director = healthy()
    director.show("node1", DEAD)
    director.view = View((peer("node1", Post.PRIMARY), peer("node2", Post.STANDBY, "HS:alone"), peer("node3", Post.STANDBY, "HS:alone")))
    director.look(lvs.SETTLE + 60)
    assert director.weights() == {"node2": 1, "node3": 1}


def test_a_long_time_without_primary_keeps_the_list() -> None:
    """There is no limit but the evidence of each server."""
    director = healthy()
    director.view = NO_PRIMARY
    director.look(3600)
    assert director.weights() == {"node2": 1, "node3": 1}
    director.show("node2", DEAD)
    director.look()
    assert director.weights() == {"node3": 1}


def test_a_director_without_a_list_takes_the_standbys_by_role() -> None:
    """It has just come to this node in the middle of a failover."""
    director = Director(view=View((peer("node1", Post.NONE), peer("node2", Post.STANDBY, "HS:alone"), peer("node3", Post.STANDBY, "STOP"))))
    director.look()
    assert director.weights() == {"node2": 1}


def test_a_director_that_knows_nothing_changes_nothing() -> None:
    """A new process finds a table and cannot ask anybody."""
    director = healthy()
    director.memory, director.view, director.evidence = Memory(), Unknown("no answer"), {}
    assert director.look().edits == ()
    director.addresses = {}
    assert director.look().edits == ()


@pytest.mark.parametrize("source", [PLAIN, PLAIN._replace(script="list"), PLAIN._replace(attribute="")])
def test_a_question_without_answer_keeps_the_pool(source: Configuration) -> None:
    """Pacemaker, script: said once when it begins, once when it is over."""
    director = Director(source)
    director.listed = ("node2", "node3")
    director.look()
    director.look(lvs.SETTLE + 1)
    director.view, director.listed = Unknown("cibadmin got no answer"), Unknown("no end within 5 s")
    first, second = director.look(), director.look(100)
    assert director.weights() == {"node2": 1, "node3": 1}
    assert (first.edits, second.edits, second.lines) == ((), (), ())
    assert [level for level, _ in first.lines] == ["WARNING"]
    director.view, director.listed = HEALTHY, ("node2", "node3")
    assert [level for level, _ in director.look().lines] == ["INFO"]


# -- leaving and coming back


def test_a_dead_server_leaves_at_once_and_returns_when_it_goes_on_answering() -> None:
    """One answer of somebody who flaps is not enough."""
    director = healthy()
    director.busy("node3", 10)
    director.show("node3", DEAD)
    decision = director.look()
    assert decision.edits == (DeleteServer(SERVICE, RealServer(ADDRESS["node3"], 5432)),)
    assert "connection refused" in decision.lines[0][1]
    for evidence in (ALIVE, DEAD, ALIVE):
        director.show("node3", evidence)
        director.look(0.1)
        assert director.weights() == {"node2": 1}
    director.look(PLAIN.check_interval)
    assert director.weights() == {"node2": 1, "node3": 1}


def test_the_last_server_that_comes_back_serves_at_once() -> None:
    """Whoever flaps is better than nobody."""
    director = healthy()
    director.show("node3", DEAD)
    director.show("node2", DEAD)
    director.look()
    assert director.weights() == {}
    director.show("node2", ALIVE)
    director.look(0.01)
    assert director.weights() == {"node2": 1}


def test_a_healthy_server_that_leaves_is_drained_until_it_is_idle() -> None:
    """Weight 0 first, then nothing as long as there are connections, then away."""
    director = healthy()
    director.busy("node3")
    director.view = View((HEALTHY.peers[0], HEALTHY.peers[1], peer("node3", Post.STANDBY, "HS:alone")))
    decision = director.look()
    assert decision.edits == (SetServer(SERVICE, RealServer(ADDRESS["node3"], 5432, 0)),)
    assert "HS:alone" in decision.lines[0][1]
    assert director.look(20).edits == ()
    director.busy("node3", 0)
    assert director.look().edits == (DeleteServer(SERVICE, RealServer(ADDRESS["node3"], 5432, 0)),)


def test_draining_has_a_limit() -> None:
    """Then connections are closed."""
    director = healthy()
    director.busy("node3")
    director.view = View((HEALTHY.peers[0], HEALTHY.peers[1], peer("node3", Post.STANDBY, "HS:alone")))
    director.look()
    director.look(PLAIN.drain_time - 0.1)
    assert director.weights() == {"node2": 1, "node3": 0}
    director.look(0.2)
    assert director.weights() == {"node2": 1}


def test_an_idle_server_stays_a_moment() -> None:
    """A connection that is just being made is not counted yet; with drain_time 0 nobody waits."""
    director = healthy()
    gone = View((HEALTHY.peers[0], HEALTHY.peers[1], peer("node3", Post.STANDBY, "HS:alone")))
    director.view = gone
    director.look()
    assert director.weights() == {"node2": 1, "node3": 0}
    director.look(lvs.DRAIN_LEAST)
    assert director.weights() == {"node2": 1}
    at_once = healthy(PLAIN._replace(drain_time=0.0))
    at_once.view = gone
    at_once.look()
    assert at_once.weights() == {"node2": 1}


def test_a_drained_server_that_is_listed_again_has_its_weight_back() -> None:
    """And its time begins anew when it leaves again."""
    director = healthy()
    director.busy("node3")
    gone = View((HEALTHY.peers[0], HEALTHY.peers[1], peer("node3", Post.STANDBY, "HS:alone")))
    for view, weight in ((gone, 0), (HEALTHY, 1), (gone, 0)):
        director.view = view
        director.look(20)
        assert director.weights() == {"node2": 1, "node3": weight}


def test_the_last_servers_are_not_turned_off() -> None:
    """There is nobody who could take their readers, however long; once there is, they have their time to drain."""
    director = healthy()
    alone = View((HEALTHY.peers[0], peer("node2", Post.STANDBY, "HS:alone"), peer("node3", Post.STANDBY, "HS:alone")))
    director.view = alone
    for _ in range(5):
        director.look(lvs.DRAIN_LEAST / 2)
        assert any(director.weights().values())
    director.look(PLAIN.drain_time)
    assert director.weights() == {"node2": 1, "node3": 1}
    director.view = View((*alone.peers[:2], HEALTHY.peers[2]))
    director.look()
    assert director.weights() == {"node2": 0, "node3": 1}
    director.look(PLAIN.drain_time)
    assert director.weights() == {"node3": 1}


@pytest.mark.parametrize("script", ["", "list"])
def test_a_node_tagged_noloadbalance_is_drained(script: str) -> None:
    """Whatever gives the list; readers that it has may finish; without the tag it comes back."""
    director = Director(PLAIN._replace(script=script))
    director.listed = ("node2", ADDRESS["node3"])
    director.look()
    director.look(lvs.SETTLE + 1)
    director.busy("node3")
    director.view = View((*HEALTHY.peers[:2], HEALTHY.peers[2]._replace(excused=True)))
    assert "it is tagged noloadbalance" in str(director.look().lines)
    assert director.weights() == {"node2": 1, "node3": 0}
    director.look(PLAIN.drain_time)
    assert director.weights() == {"node2": 1}
    director.view = HEALTHY
    director.look()
    assert director.weights() == {"node2": 1, "node3": 1}


def test_a_silent_server_gets_no_new_connections() -> None:
    """Slow is not dead; and if all are slow, they serve."""
    director = healthy()
    director.show("node3", SILENT)
    director.look()
    assert director.weights() == {"node2": 1, "node3": 0}
    director.show("node2", SILENT)
    director.look()
    assert director.weights() == {"node2": 1, "node3": 1}


def test_a_server_that_was_not_tried_yet_is_not_added_unless_nobody_else_is_there() -> None:
    """A first look does not wait for the slowest."""
    director = Director()
    del director.evidence[ADDRESS["node3"]]
    director.look()
    assert director.weights() == {"node2": 1}
    nobody = Director()
    nobody.evidence = {}
    nobody.look()
    assert nobody.weights() == {"node2": 1, "node3": 1}


# -- sources of the list


def test_a_script_overrides_everything_else() -> None:
    """Names and addresses; node4 is none of Pacemaker's."""
    director = Director(PLAIN._replace(script="list"))
    director.listed = ("node2", ADDRESS["node3"], "node4")
    director.look()
    assert director.weights() == {"node2": 1, "node3": 1, "node4": 1}


def test_names_that_cannot_be_resolved_are_named_and_the_others_served() -> None:
    """Unless none can be: then it is no list."""
    director = Director(PLAIN._replace(script="list"))
    director.listed, director.addresses["ghost"], director.addresses["ERROR:"] = ("node2", "ghost"), "", ""
    decision = director.look()
    assert director.weights() == {"node2": 1}
    assert any("ghost" in line for level, line in decision.lines if level == "WARNING")
    director.listed = ("ERROR:", "ghost")
    director.look(lvs.SETTLE + 60)
    assert director.weights() == {"node2": 1}


def test_rubbish_never_becomes_the_last_good_list() -> None:
    """Neither while its words are being looked up nor afterwards."""
    director = Director(PLAIN._replace(script="list"))
    director.listed = ("node2", "node3")
    director.look()
    director.look(lvs.SETTLE + 1)
    director.listed = ("psql:", "no", "route")
    assert (director.look(60).edits, director.memory.hosts) == ((), ("node2", "node3"))
    director.addresses.update({"psql:": "", "no": "", "route": ""})
    assert (director.look(60).edits, director.memory.hosts) == ((), ("node2", "node3"))


def test_a_name_that_is_being_looked_up_turns_nobody_off() -> None:
    """A new process does not drain a table because the names take a moment."""
    director = healthy()
    director.addresses = {address: address for address in ADDRESS.values()}
    director.memory = Memory()
    assert director.look().edits == ()


def test_a_static_list_with_a_check_script() -> None:
    """Method 2 of the whitelist: t is in, f is out, anything else is what it was."""
    configuration = PLAIN._replace(resource="", check="check", weights=(("node1", 1), ("node2", 3), ("node3", 1), ("node4", 1)))
    director = Director(configuration)
    director.checked = {"node1": False, "node2": True, "node3": Unknown("exit code 1"), "node4": True}
    director.look()
    assert director.weights() == {"node2": 3, "node4": 1}
    director.checked["node2"], director.checked["node4"] = Unknown("no end within 5 s"), False
    director.look(lvs.SETTLE + 1)
    assert director.weights() == {"node2": 3, "node4": 0}


def test_a_whitelist_by_weight() -> None:
    """Method 1: default_weight 0, and the listed ones 1."""
    configuration = PLAIN._replace(script="list", default_weight=0, weights=(("node2", 1), ("node3", 1)))
    director = Director(configuration)
    director.listed = ("node2", "node3", ADDRESS["node4"])
    director.look()
    assert director.weights() == {"node2": 1, "node3": 1, "node4": 0}
    director.configuration = configuration._replace(default_weight=1)
    assert director.look().edits == (SetServer(SERVICE, RealServer(ADDRESS["node4"], 5432, 1)),)


def test_weights_are_found_by_name_and_by_address() -> None:
    """Whatever form the list and the configuration use."""
    for listed, named in itertools.product(("node2", ADDRESS["node2"]), repeat=2):
        director = Director(PLAIN._replace(script="list", weights=((named, 7),)))
        director.listed = (listed,)
        director.look()
        assert director.weights() == {"node2": 7}


def test_a_missing_dependent_resource_empties_nothing() -> None:
    """A mistyped name is named."""
    director = healthy()
    director.view = HEALTHY._replace(missing="lvsdr-realsvr-clon")
    decision = director.look(lvs.SETTLE + 60)
    assert director.weights() == {"node2": 1, "node3": 1}
    assert "lvsdr-realsvr-clon" in decision.lines[0][1]


class Lag(NamedTuple):
    """A server outside of the cluster, or inside, as the primary sees it."""

    name: str
    size: int = 0
    seconds: float = 0.0
    state: str = "streaming"

    def row(self) -> Replica:
        return Replica(self.name, ADDRESS.get(self.name, ""), self.state, "async", self.size, self.seconds)


def test_readers_serve_while_they_stream() -> None:
    """By name or address; when the primary cannot be asked they stay what they were."""
    director = healthy(PLAIN._replace(readers=(("node4", 2),), conninfo="host=x"))
    for replicas, weight in (
        ((Lag("node4", state="catchup").row(),), None), ((Lag("node4").row(),), 2), (Unknown("down"), 2), ((), 0),
        ((Lag("other").row()._replace(address=ADDRESS["node4"]),), 2),
    ):  # fmt: skip
        director.replicas = replicas
        director.look()
        assert director.weights().get("node4") == weight


# -- lag


def test_lag_takes_the_weight_and_gives_it_back_with_hysteresis() -> None:
    """Beyond the limit 0, below three quarters of it back; not to be judged means as before."""
    director = healthy(PLAIN._replace(max_lag_bytes=1000, conninfo="host=x"))
    for size, weight in ((1000, 1), (1001, 0), (999, 0), (751, 0), (750, 1), (1000, 1), (1001, 0)):
        director.replicas = (Lag("node3", size).row(), Lag("node2").row())
        director.look()
        assert director.weights() == {"node2": 1, "node3": weight}
    director.replicas = Unknown("no answer")
    director.look()
    assert director.weights() == {"node2": 1, "node3": 0}
    director.replicas = (Lag("node2").row(),)
    director.look()
    assert director.weights() == {"node2": 1, "node3": 0}


def test_seconds_and_a_weight_for_those_who_lag() -> None:
    """lag_weight is the highest that they get."""
    director = Director(PLAIN._replace(max_lag_seconds=30.0, lag_weight=2, weights=(("node3", 5), ("node2", 1)), conninfo="host=x"))
    director.replicas = (Lag("node3", 0, 31.0).row(), Lag("node2", 0, 31.0).row())
    director.look()
    assert director.weights() == {"node2": 1, "node3": 2}


def test_a_limit_is_a_limit_even_for_the_last() -> None:
    """Whoever sets one does not want older data."""
    director = healthy(PLAIN._replace(max_lag_bytes=10, conninfo="host=x"))
    director.replicas = (Lag("node2", 100).row(), Lag("node3", 100).row())
    director.look()
    assert director.weights() == {"node2": 0, "node3": 0}


# -- fallback


def test_the_primary_serves_when_nobody_else_can_and_is_drained_afterwards() -> None:
    """Only if it is allowed to, and has the virtual address."""
    primary = peer("node1", Post.PRIMARY)._replace(candidate=True)
    director = healthy(PLAIN._replace(fallback=True))
    director.view = View((primary, *HEALTHY.peers[1:]))
    director.show("node2", DEAD)
    director.show("node3", DEAD)
    director.look()
    assert director.weights() == {"node1": 1}
    assert director.look().edits == ()
    director.busy("node1")
    director.show("node2", ALIVE)
    director.look()
    director.look()
    assert director.weights() == {"node1": 0, "node2": 1}
    director.busy("node1", 0)
    director.look(2)
    assert director.weights() == {"node2": 1}
    strict = healthy()
    strict.view = View((primary, *HEALTHY.peers[1:]))
    strict.show("node2", DEAD)
    strict.show("node3", DEAD)
    strict.look()
    assert strict.weights() == {}


# -- all of it


POSTS = (peer("node2", Post.STANDBY, "HS:sync"), peer("node2", Post.STANDBY, "HS:alone"), peer("node2", Post.PRIMARY), peer("node2", Post.NONE))
EVIDENCE = (ALIVE, DEAD, SILENT, None)


@pytest.mark.parametrize("first", [Post.PRIMARY, Post.NONE])
def test_every_scene_after_a_healthy_one(first: Post) -> None:
    """All combinations of two standbys: no primary ever serves, no dead one does, a healthy standby always does, deletions come last."""
    for two, three, seen_two, seen_three in itertools.product(POSTS, POSTS, EVIDENCE, EVIDENCE):
        director = healthy()
        third = three._replace(name="node3")
        director.view = View((peer("node1", first), two, third))
        for name, evidence in (("node2", seen_two), ("node3", seen_three)):
            if evidence is None:
                del director.evidence[ADDRESS[name]]
            else:
                director.show(name, evidence)
        decision = director.look()
        weights = director.weights()
        for one, evidence in ((two, seen_two), (third, seen_three)):
            if one.post is Post.PRIMARY or evidence is DEAD:
                assert one.name not in weights
        if any(one.post is Post.STANDBY and evidence is ALIVE for one, evidence in ((two, seen_two), (third, seen_three))):
            assert any(weights.values())
        kinds = [isinstance(edit, DeleteServer) for edit in decision.edits]
        assert kinds == sorted(kinds)
        assert director.look(0.01).edits == (), "looking again changes nothing"


# -- edits


def test_edits_come_in_order() -> None:
    """Service, additions, what gains weight, what loses it, deletions."""
    table = [Entry(RealServer(f"10.0.0.{number}", 1, weight)) for number, weight in ((1, 1), (2, 0), (3, 1), (4, 1))]
    wish = [RealServer("10.0.0.1", 1, 0), RealServer("10.0.0.2", 1, 1), RealServer("10.0.0.4", 1, 1), RealServer("10.0.0.5", 1, 1)]
    service = Service("10.0.0.9", 1, scheduler="wrr")
    assert lvs.changes(service._replace(scheduler="rr"), table, service, wish) == (
        SetService(service), AddServer(service, wish[3]), SetServer(service, wish[1]), SetServer(service, wish[0]),
        DeleteServer(service, table[2].server),
    )  # fmt: skip


def test_the_kernels_own_forms_are_no_difference() -> None:
    """The flag that the kernel sets, the longest prefix, a local server."""
    standing = SERVICE._replace(flags=2, prefix=32)
    table = [Entry(RealServer("10.0.0.1", 5432, 1, Method.LOCAL))]
    assert lvs.changes(standing, table, SERVICE, [RealServer("10.0.0.1", 5432)]) == ()


# -- parameters


def values(**changed: object) -> dict[str, object]:
    """The values of lvsdr's parameters."""
    return {
        "vip": "192.168.0.237", "port": 5432, "virtual_service_options": "-s rr", "default_weight": 1, "weight_of_realservers": (),
        "heartbeat_file": "", "realserver_dependent_resource": "", "realserver_dependent_attribute_name": "readable",
        "realserver_dependent_attribute_value": "1", "realserver_get_real_servers_script": "",
        "realserver_check_active_real_server_script": "", "readers": (), "conninfo": "", "passfile": "", "max_lag_bytes": 0,
        "max_lag_seconds": 0.0, "lag_weight": 0, "drain_time": 30.0, "fallback_to_primary": False, "check_interval": 0.5,
        "check_timeout": 1.0, "script_timeout": 5.0, "sync_daemon": False, "sync_interface": "", "sync_id": 0,
        "sync_threshold": ("0", "1"), "fwmark": 0, "fwmark_ports": (), **changed,
    }  # fmt: skip


def test_every_mistake_is_named() -> None:
    """All at once, with the words of the parameter that are wrong."""
    wrong: dict[str, object] = {
        "vip": "reader", "port": 0, "virtual_service_options": "-s rr -u 1.2.3.4:5 -p never",
        "weight_of_realservers": ("node1,x", "node2,70000", "-h"),
        "readers": ("node4",), "sync_daemon": True, "sync_id": 256, "sync_threshold": ("3", "1"), "fwmark_ports": ("0",), "check_interval": 0.0,
    }  # fmt: skip
    _, mistakes = lvs_settings.read_director(values(**wrong))
    named = [one.parameter for one in mistakes]
    assert {one: named.count(one) for one in named} == {
        "vip": 1, "port": 1, "virtual_service_options": 3, "weight_of_realservers": 3, "conninfo": 1, "sync_interface": 1, "sync_id": 1,
        "sync_threshold": 1, "fwmark_ports": 1, "check_interval": 1,
    }  # fmt: skip
    assert lvs_settings.read_director(values())[1] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-s wrr", Service("1.1.1.1", 1, scheduler="wrr")),
        ("", Service("1.1.1.1", 1, scheduler="wlc")),
        ("--scheduler=sh -b sh-port,sh-fallback", Service("1.1.1.1", 1, scheduler="sh", flags=0x18)),
        ("-s rr -p", Service("1.1.1.1", 1, flags=1, persistence=300)),
        ("-p 60 -s rr -M 255.255.255.0", Service("1.1.1.1", 1, flags=1, persistence=60, prefix=24)),
        ("-s rr --persistent=60 --netmask 255.255.255.255", Service("1.1.1.1", 1, flags=1, persistence=60)),
    ],
)
def test_options_are_those_of_ipvsadm(text: str, expected: Service) -> None:
    """In short and long form."""
    assert lvs_settings.read_options(text, Service("1.1.1.1", 1)) == (expected, [])


@pytest.mark.parametrize("text", ["-t 1.2.3.4:5", "-o", "-s", "-M 255.0.255.0", "-b sh-whatever", "-p 0", "--pe sip", "rr", "-s rr -x"])
def test_options_that_do_not_fit_are_refused_by_name(text: str) -> None:
    """With what does fit."""
    _, mistakes = lvs_settings.read_options(text, Service("1.1.1.1", 1))
    assert mistakes
    assert any(word in mistakes[0].message for word in text.split())


def test_a_mark_balances_several_ports() -> None:
    """Its real servers have no port of their own."""
    configuration, mistakes = lvs_settings.read_director(values(fwmark=7, fwmark_ports=("5432", "6432"), virtual_service_options="-s rr -o"))
    assert mistakes == []
    assert configuration.service == Service(fwmark=7, flags=4)
    director = Director(configuration._replace(attribute=""))
    assert {edit.server.port for edit in director.look().edits if isinstance(edit, AddServer)} == {0}
