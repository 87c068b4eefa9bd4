"""The number that a chat model's answer comes to is read as people read it, or none is."""

import pytest

from sft.scoring.written_number import amount_in


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (r"$\frac{-3}{4}$", -0.75),
        (r"\tfrac{1}{2}", 0.5),
        (r"\frac12", 0.5),
        (r"\dfrac{3}{-4}", -0.75),
        (r"-\frac{3}{4}", -0.75),
        (r"1\frac{1}{2}", 1.5),
        (r"-2\dfrac{1}{4}", -2.25),
        (r"\frac{1,000}{8}", 125),
        (r"\frac 12", 0.5),
        (r"\frac1{2}", 0.5),
        (r"\frac{1}2", 0.5),
        (r"\boxed{\frac{1}{2}}", 0.5),
        (r"\boxed{42}. That is 3 more than 39.", 42),
        (r"So $\boxed{-\dfrac{3}{4}}$.", -0.75),
        (r"\boxed{1{,}000}", 1000),
        ("$1{,}234{,}567$", 1234567),
        (r"12\,345", 12345),
        (r"10\!000", 10000),
        (r"\boxed{12\%}", 12),
        (r"\boxed{90^\circ}", 90),
        (r"90^{\circ}", 90),
        ("90°", 90),
        (r"42\text{ cm}^2", 42),
        (r"42~\text{m}^{2}", 42),
        (r"5\,\mathrm{m}^{-1}", 5),
        ("x_{2} = 7", 7),
        ("7 = x_{2}", 7),
        ("−5", -5),
        ("x = –5", -5),
        ("x = -5", -5),
        ("pages 3–5", 5),
        ("(−5)", -5),
        ("½", 0.5),
        ("3½ hours", 3.5),
        ("3 ½", 3.5),
        ("1⁄2", 0.5),
        ("10⁻³", 0.001),
        ("6.02 × 10²³", 6.02e23),
        ("6.02 x 10^23", 6.02e23),
        ("1.5e-3", 0.0015),
        ("1.5E+3", 1500),
        (r"6.02 \times 10^{23}", 6.02e23),
        ("50 percent", 50),
        ("50 per cent", 50),
        ("12.5 %", 12.5),
        ("£1,234.50", 1234.5),
        ("1.234,56 €", 1234.56),
        ("₹500", 500),
        ("US$18", 18),
        ("-$5", -5),
        ("$-5", -5),
        (r"\$18", 18),
        (r"\$-18", -18),
        (r"-\$18", -18),
        ("$18$", 18),
        ("The answer is **18**.", 18),
        ("#### 18", 18),
        ("#### $18.00", 18),
        ("The total is 18 dollars.", 18),
        ("2, 3, 5", 5),
        ("It's 1 000 000.", 1000000),
        ("1,000,000.", 1000000),
        ("4²", 16),
        ("2^{10}", 1024),
        ("٤٢", 42),
        ("４２", 42),
        ("５，０００", 5000),
        ("The answer is 42. There are 7 days in a week.", 42),
        ("Answer: 42 (6 × 7)", 42),
        ("The answer is 6 × 7 = 42", 42),
        ("The answer is 3 times 14, so 42", 42),
        ("Final answer: 42 apples", 42),
        ("Answer: 42\n\nExplanation: 40 + 2", 42),
        (r"x \approx 3.14", 3.14),
        ("≈3.14", 3.14),
        ("~3.14", 3.14),
        (r"\left(-5\right)", -5),
        (r"\frac{3}{4}\%", 0.75),
        ("+5", 5),
        ("5-10 = -5", -5),
        ("(3/4)", 0.75),
        ("-3/4", -0.75),
        ("7 1/2", 7.5),
        ("-7 1/2", -7.5),
        ("−7 ½", -7.5),
        ("1.", 1),
        (".5", 0.5),
        ("0.50", 0.5),
        ("3 x 4", 4),
        ("−1,234", -1234),
        ("10 − 5 = 5", 5),
        ("10−5", 5),
        ("5 million", 5000000.0),
        ("1/2/2020", 2020),
        ("0x1F", 31),
        (r"\text{42}", 42),
        (r"\mathbf{42}", 42),
        (r"\[ 42 \]", 42),
        (r"\(42\)", 42),
        ("42.", 42),
        ("42%", 42),
        ("-0.5", -0.5),
        ("$0.05$", 0.05),
        ("a = 3, b = 4", 4),
        ("The price is $3.50 each.", 3.5),
        ("2 hours and 30 minutes", 30),
        ("The answer is 42. Wait, it is 43.", 43),
        ("The answer is 3, 4", 4),
        ("Answer: 3 or 4", 4),
        ("The answer is 42, not 43.", 42),
        ("Answer: $5 in all (2 + 3)", 5),
        (r"\boxed{1} and \boxed{2}", 2),
        ("about 2 thousand", 2000),
    ],
)
def test_an_answer_comes_to_a_number(answer: str, number: float) -> None:
    amount = amount_in(answer)
    assert amount is not None
    assert float(amount.value) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize(
    "answer",
    [
        r"\log_{2}",
        r"\sqrt{2}",
        r"2\sqrt{3}",
        "√2",
        r"2\pi",
        "2π",
        r"\frac{\pi}{2}",
        r"\frac{\sqrt{3}}{2}",
        "3:30",
        "3:4",
        "H2O",
        r"\frac{x}{2}",
        r"\boxed{\text{none}}, as 5 is odd",
    ],
)
def test_what_is_no_plain_number_is_not_guessed_at(answer: str) -> None:
    assert amount_in(answer) is None


@pytest.mark.parametrize(
    ("answer", "is_percent"), [("50 %", True), (r"50\%", True), ("50 percent", True), ("50", False)]
)
def test_percent_is_told(answer: str, is_percent: bool) -> None:
    amount = amount_in(answer)
    assert amount is not None
    assert amount == (50, is_percent)


@pytest.mark.parametrize(
    "begun", ["1", "1,", "1 ", r"\boxed{{", r"\frac{", r"\sqrt{1}", "answer is 1 a ", "1.000.", "1:"]
)
def test_long_texts_take_no_long_time(begun: str) -> None:
    amount_in(begun * 2000)
