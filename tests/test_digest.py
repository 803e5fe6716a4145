from __future__ import annotations

from hashlib import sha256

import pytest

from tavus_provider.digest import canonical_digest, canonical_json, digest_of, seal


def test_canonical_json_is_independent_of_key_order():
    assert canonical_json({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


def test_canonical_json_rejects_nan():
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": float("nan")})


def test_canonical_json_encodes_lone_surrogates():
    assert canonical_json({"a": "\ud83d"}) == b'{"a":"\xed\xa0\xbd"}'


def test_canonical_digest_is_the_sha256_of_the_canonical_json():
    assert canonical_digest({"b": 1, "a": 2}) == sha256(b'{"a":2,"b":1}').hexdigest()


def test_seal_adds_the_digest_of_the_rest():
    sealed = seal({"a": 1})
    assert sealed == {"a": 1, "digest": canonical_digest({"a": 1})}
    assert seal(sealed) == sealed


def test_digest_of_ignores_the_digest_only():
    sealed = seal({"a": 1})
    assert digest_of(sealed | {"digest": "other"}) == sealed["digest"]
    assert digest_of(sealed | {"a": 2}) != sealed["digest"]


def test_canonical_digest_of_text_outside_ascii():
    # printf '{"a":"é","b":[1,null]}' | sha256sum
    expected = "3d92f6368f93f3cb36a4e7a721098054dfbfd705e31fa50409f2d99e0727a08c"
    assert canonical_digest({"b": [1, None], "a": "é"}) == expected
