from mmjax.evaluate.report.tables import parameter_rows, result_tables


def test_rows_of_the_same_columns_share_a_table_and_fractions_have_their_own():
    results = {"step": 10, "trained_on_synthetic_data": False}
    for name in ("new_style", "new_concept"):
        for way in ("image_to_text", "text_to_image"):
            results |= {f"{name}/retrieval/{way}/R@1": 0.5, f"{name}/retrieval/{way}/queries": 1000}
        results[f"{name}/retrieval/image_to_text/recall_fraction@1"] = 0.25
        results[f"{name}/retrieval/modality_gap"] = 0.125
    recalls, fractions, gaps = result_tables(results)
    assert recalls.columns == ("R@1", "queries")
    assert [name for name, _ in recalls.rows] == [
        "new style, retrieval, image to text",
        "new style, retrieval, text to image",
        "new concept, retrieval, image to text",
        "new concept, retrieval, text to image",
    ]
    assert {cells for _, cells in recalls.rows} == {("50.0", "1,000")}
    assert fractions.columns == ("fraction @1",)
    assert [cells for _, cells in fractions.rows] == [("25.0",), ("25.0",)]
    assert [cells for _, cells in gaps.rows] == [("0.125",), ("0.125",)]


def test_a_share_of_one_is_a_hundred_per_cent():
    assert result_tables({"zero_shot/top1": 1.0})[0].rows == [("zero shot", ("100.0",))]


def test_no_parameters_are_none():
    assert parameter_rows({}) == [("all", 0)]
