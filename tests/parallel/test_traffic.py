import pytest

from mmjax.parallel import Collective, collective_traffic

PROGRAM = """HloModule jit_f, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %all-reduce = f32[4]{0} all-reduce(%x), channel_id=3, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  ROOT %tuple = (s32[], f32[4]{0}) tuple(%i, %all-reduce)
}

%condition (p: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %while = (s32[], f32[4]{0}) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"6"}}
  ROOT %permute = bf16[2,3]{1,0} collective-permute(%y), channel_id=4, source_target_pairs={{0,1},{1,0}}
}
"""


def test_loops_count_their_turns_and_what_a_reduction_applies_counts_not():
    assert collective_traffic(PROGRAM) == (
        Collective("all-reduce", devices=2, size=16, count=6),
        Collective("collective-permute", devices=8, size=12, count=1),
    )


def entry(line):
    return f"HloModule m, num_partitions=8\n\nENTRY %main (x: f32[4]) -> f32[4] {{\n  ROOT %r = {line}\n}}"


@pytest.mark.parametrize(
    ("line", "devices", "size", "sent"),
    [
        ("f32[8,4]{1,0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}", 4, 128, 96),
        ("f32[8,4]{1,0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}", 2, 128, 64),
        ("f32[8,4]{1,0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'a','b':(1)2}, dimensions={0}", 4, 128, 96),
        ("f32[8,4]{1,0} all-reduce(%x), replica_groups={}, to_apply=%add", 8, 128, 224),
        ("(f32[8,4]{1,0}, pred[3]{0}) all-reduce(%x, %y), replica_groups=[1,8]<=[8], to_apply=%add", 8, 131, 229),
        ("f32[4]{0} reduce-scatter(%x), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add", 8, 16, 112),
        ("s64[8]{0} all-to-all(%x), replica_groups=[2,4]<=[8], dimensions={0}", 4, 64, 48),
        ("(f32[2]{0}, f32[8]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8], dimensions={0}", 4, 32, 24),
        ("(f32[2]{0}, f32[2]{0}) collective-permute-start(%x), source_target_pairs={{0,1}}", 8, 8, 8),
    ],
)
def test_bytes_by_kind_and_group(line, devices, size, sent):
    (collective,) = collective_traffic(entry(line))
    assert (collective.devices, collective.size, collective.sent) == (devices, size, sent)


def test_groups_of_one_device_send_nothing():
    assert collective_traffic(entry("f32[8]{0} all-reduce(%x), replica_groups=[8,1]<=[8], to_apply=%add")) == ()


# As compilers for TPUs write them: a reduce-scatter as a fused sum and slice; a gather that other work runs beside, in
# the programs that start it, go on with it and end it; a loop whose length only its counter tells.
TPU = """HloModule jit_f, is_scheduled=true, num_partitions=8

%all-reduce-scatter.1 (input_0: f32[64,4]) -> f32[8,4] {
  %all-reduce.1 = f32[64,4]{1,0:T(8,128)} all-reduce(%input_0), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %slice = f32[8,4]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %i, %zero), dynamic_slice_sizes={8,4}
}

%fused_computation.1 (param_0: bf16[2,4]) -> (bf16[2,4], bf16[16,4]) {
  %all-gather.1 = bf16[16,4]{1,0} all-gather(%param_0), channel_id=2, dimensions={0}, frontend_attributes={chain_id="1"}
  ROOT %tuple.1 = (bf16[2,4]{1,0}, bf16[16,4]{1,0}) tuple(%param_0, %all-gather.1)
}

%async_collective_fusion.1 (param_0: bf16[2,4]) -> (bf16[2,4], bf16[16,4]) {
  %all-gather.2 = bf16[16,4]{1,0} all-gather(%param_0), channel_id=2, dimensions={0}, frontend_attributes={chain_id="1"}
  ROOT %tuple.2 = (bf16[2,4]{1,0}, bf16[16,4]{1,0}) tuple(%param_0, %all-gather.2)
}

%fused_computation.2 (param_0: bf16[2,4]) -> bf16[16,4] {
  ROOT %all-gather.3 = bf16[16,4]{1,0} all-gather(%param_0), channel_id=2, frontend_attributes={chain_id="1"}
}

%body (p: (f32[4], u32[], f32[4])) -> (f32[4], u32[], f32[4]) {
  %two = u32[]{:T(128)} constant(2)
  %x = f32[4]{0} get-tuple-element(%p), index=0
  %count = u32[]{:T(128)} get-tuple-element(%p), index=1
  %permute = f32[4]{0} collective-permute(%x), channel_id=3, source_target_pairs={{0,1},{1,0}}
  %next.1 = u32[]{:T(128)} add(%count, %two)
  ROOT %tuple.3 = (f32[4]{0}, u32[]{:T(128)}, f32[4]{0}) tuple(%permute, %next.1, %x)
}

%condition (p: (f32[4], u32[], f32[4])) -> pred[] {
  %limit = u32[]{:T(128)} constant(7)
  %count.1 = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %less = pred[]{:T(512)} compare(%count.1, %limit), direction=LT
}

ENTRY %main (x: f32[64,4]) -> f32[8,4] {
  %async-collective-start.1 = (bf16[2,4]{1,0}, bf16[16,4]{1,0}) fusion(%y), kind=kCustom, calls=%fused_computation.1
  %go-on = (bf16[2,4]{1,0}, bf16[16,4]{1,0}) fusion(%y), kind=kCustom, calls=%async_collective_fusion.1
  %async-collective-done.1 = bf16[16,4]{1,0} fusion(%y), kind=kCustom, calls=%fused_computation.2
  %while = (f32[4]{0}, u32[]{:T(128)}, f32[4]{0}) while(%t), condition=%condition, body=%body
  ROOT %fusion.1 = f32[8,4]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_what_tpus_fuse_counts_once_and_as_what_it_is():
    assert set(collective_traffic(TPU)) == {
        Collective("reduce-scatter", devices=8, size=128, count=1),
        Collective("all-gather", devices=8, size=128, count=1),
        Collective("collective-permute", devices=8, size=16, count=4),
    }


def test_a_loop_of_unknown_length_counts_once():
    for old, new in (
        ("constant(7)", "parameter(1)"),
        ("constant(2)", "parameter(1)"),
        ("direction=LT", "direction=NE"),
    ):
        assert Collective("collective-permute", devices=8, size=16, count=1) in collective_traffic(
            TPU.replace(old, new)
        )
