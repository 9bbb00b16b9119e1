"""The tree against the RFC's own recursive definition and against pymerkle, and its proofs against mutation."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from dockd.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from dockd.errors import VerificationFailed

SIZE = 64
LEAVES = [b"entry %d" % number for number in range(SIZE)]


class Nodes(dict):
    def node(self, level, index):
        return self[level, index]


def grown(leaves):
    nodes, frontier, roots = Nodes(), Frontier(), [EMPTY_ROOT]
    for leaf in leaves:
        nodes.update({(level, index): value for level, index, value in frontier.append(leaf)})
        roots.append(frontier.root())
    return nodes, frontier, roots


NODES, _, ROOTS = grown(LEAVES)


# RFC 6962, section 2.1, read literally: slow, and hard to get wrong.


def literal_split(count):
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def literal_root(leaves):
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    at = literal_split(len(leaves))
    return hashlib.sha256(b"\1" + literal_root(leaves[:at]) + literal_root(leaves[at:])).digest()


def literal_path(index, leaves):
    if len(leaves) == 1:
        return []
    at = literal_split(len(leaves))
    if index < at:
        return [*literal_path(index, leaves[:at]), literal_root(leaves[at:])]
    return [*literal_path(index - at, leaves[at:]), literal_root(leaves[:at])]


def literal_proof(old, leaves, *, whole=True):
    if old == len(leaves):
        return [] if whole else [literal_root(leaves)]
    at = literal_split(len(leaves))
    if old <= at:
        return [*literal_proof(old, leaves[:at], whole=whole), literal_root(leaves[at:])]
    return [*literal_proof(old - at, leaves[at:], whole=False), literal_root(leaves[:at])]


def test_p07_roots_equal_those_of_the_rfc_and_of_pymerkle():
    tree = InmemoryTree(algorithm="sha256")
    assert tree.hash_empty() == EMPTY_ROOT
    for size, leaf in enumerate(LEAVES, 1):
        assert tree.append_entry(leaf) == size
        assert ROOTS[size] == tree.get_root() == literal_root(LEAVES[:size]) == root_at(NODES, size)


def test_p07_inclusion_proofs_equal_those_of_the_rfc_and_of_pymerkle_for_every_size():
    tree = InmemoryTree(algorithm="sha256")
    for leaf in LEAVES:
        tree.append_entry(leaf)
    for size in range(1, SIZE + 1):
        for index in range(size):
            proof = inclusion_proof(NODES, index, size)
            assert proof == literal_path(index, LEAVES[:size])
            assert [leaf_hash(LEAVES[index]), *proof] == list(tree.prove_inclusion(index + 1, size).path)
            verify_inclusion(index, size, leaf_hash(LEAVES[index]), ROOTS[size], proof)


def test_p07_consistency_proofs_equal_those_of_the_rfc_for_every_size():
    for new in range(1, SIZE + 1):
        for old in range(1, new + 1):
            proof = consistency_proof(NODES, old, new)
            assert proof == literal_proof(old, LEAVES[:new])
            verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


def test_a_frontier_is_rebuilt_from_kept_nodes():
    for size in range(SIZE):
        again = Frontier.rebuild(NODES, size)
        assert again.root() == ROOTS[size]
        again.append(LEAVES[size])
        assert again.root() == ROOTS[size + 1]


def test_the_leaves_and_nodes_of_the_rfc():
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert node_hash(b"a" * 32, b"b" * 32) == hashlib.sha256(b"\1" + b"a" * 32 + b"b" * 32).digest()


# What Certificate Transparency's own tests use: eight leaves and their roots.
KNOWN_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_p07_the_published_roots():
    _, _, roots = grown(KNOWN_LEAVES)
    assert [root.hex() for root in roots[1:]] == KNOWN_ROOTS


def mutated(draw, proof):
    how = draw(st.sampled_from(["flip", "drop", "add", "swap"]))
    proof = list(proof)
    if how == "add" or not proof:
        proof.insert(draw(st.integers(0, len(proof))), draw(st.binary(min_size=32, max_size=32)))
    elif how == "drop":
        del proof[draw(st.integers(0, len(proof) - 1))]
    elif how == "swap" and len(proof) > 1:
        proof[0], proof[-1] = proof[-1], proof[0]
    else:
        at = draw(st.integers(0, len(proof) - 1))
        byte = draw(st.integers(0, 31))
        proof[at] = proof[at][:byte] + bytes([proof[at][byte] ^ 1]) + proof[at][byte + 1 :]
    return proof


@given(data=st.data(), size=st.integers(1, SIZE))
def test_p07_a_mutated_inclusion_proof_fails(data, size):
    index = data.draw(st.integers(0, size - 1))
    proof = mutated(data.draw, inclusion_proof(NODES, index, size))
    with pytest.raises(VerificationFailed):
        verify_inclusion(index, size, leaf_hash(LEAVES[index]), ROOTS[size], proof)


@given(data=st.data(), size=st.integers(2, SIZE))
def test_p07_a_proof_shows_one_entry_at_one_place_only(data, size):
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda one: one != index))
    proof = inclusion_proof(NODES, index, size)
    with pytest.raises(VerificationFailed):
        verify_inclusion(index, size, leaf_hash(LEAVES[other]), ROOTS[size], proof)
    with pytest.raises(VerificationFailed):
        verify_inclusion(other, size, leaf_hash(LEAVES[index]), ROOTS[size], proof)


@given(data=st.data(), new=st.integers(2, SIZE))
def test_p07_a_mutated_consistency_proof_fails(data, new):
    old = data.draw(st.integers(1, new - 1))
    proof = mutated(data.draw, consistency_proof(NODES, old, new))
    with pytest.raises(VerificationFailed):
        verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


@given(data=st.data(), new=st.integers(1, SIZE))
def test_p07_a_fork_has_no_consistency_proof(data, new):
    old = data.draw(st.integers(1, new))
    at = data.draw(st.integers(0, old - 1))
    nodes, _, roots = grown([*LEAVES[:at], b"forged", *LEAVES[at + 1 : new]])
    with pytest.raises(VerificationFailed):
        verify_consistency(old, new, ROOTS[old], roots[new], consistency_proof(nodes, old, new))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_what_is_not_in_the_tree_has_no_proof(index, size):
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(NODES, index, size)
    with pytest.raises(VerificationFailed):
        verify_inclusion(index, size, bytes(32), bytes(32), [])


def test_consistency_with_the_empty_log_needs_no_proof():
    verify_consistency(0, 5, EMPTY_ROOT, ROOTS[5], [])
    verify_consistency(5, 5, ROOTS[5], ROOTS[5], [])
    with pytest.raises(VerificationFailed):
        verify_consistency(6, 5, ROOTS[6], ROOTS[5], [])
    with pytest.raises(VerificationFailed):
        verify_consistency(5, 5, ROOTS[5], ROOTS[4], [])
    with pytest.raises(VerificationFailed):
        verify_consistency(3, 5, ROOTS[3], ROOTS[5], [])
