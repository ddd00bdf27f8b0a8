"""The tests' own arithmetic gives the rows that a separate program worked out."""

import json
import pathlib
import unittest

import modeled

ROWS = json.loads((pathlib.Path(__file__).parent / "modeled_rows.json").read_text())


class Arithmetic(unittest.TestCase):
    def test_mix_is_splitmix64(self):
        self.assertEqual([f"{modeled.mix(z):016x}" for z in (0, 1)], ROWS["mix"])

    def test_rows(self):
        for row in ROWS["rows"]:
            with self.subTest(row["name"]):
                output = modeled.Output(
                    row["prompt_ids"], row["max_tokens"], row.get("choice", 0), row.get("seed"),
                    ignore_eos=row.get("ignore_eos", False))
                self.assertEqual(f"{modeled.digest_of(row['prompt_ids']):016x}", row["digest_of_prompt"])
                self.assertEqual(output.ids, row["output_ids"])
                self.assertEqual(output.text, row["text"])
                self.assertEqual(output.finish_reason, row["finish_reason"])

    def test_a_chat_is_framed_by_its_roles(self):
        row = ROWS["rows"][1]
        self.assertEqual(
            modeled.chat_ids([{"role": "user", "content": "Tell me of the sea."}]), row["prompt_ids"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
