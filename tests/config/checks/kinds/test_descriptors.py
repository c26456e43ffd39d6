from config.checks.kinds import descriptors


def test_a_limit_below_what_connections_need_is_named():
    [found] = descriptors.judge(limit=1024, connections=10_000)

    assert found.code == "few-open-files"
    assert "LimitNOFILE=20256" in found.mend


def test_a_high_limit_or_none_is_well():
    for limit in (65_536, None):
        [found] = descriptors.judge(limit=limit, connections=10_000)
        assert found.code == ""


def test_this_process_has_a_limit():
    assert descriptors.look()
