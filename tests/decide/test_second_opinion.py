"""The second opinion by itself: the scenes worked out by hand, and the comparison that uses it."""

import copy
import json
import unittest

import random_scenes
import second_opinion
import test_decide


class ByHand(unittest.TestCase):
    def test_scenes(self):
        for row in test_decide.scenes_by_hand():
            with self.subTest(row["rule"]):
                answered = second_opinion.answer_line(test_decide.as_line(row["scene"]))
                self.assertEqual(list(test_decide.expected_part(row["expect"], answered)), [])

    def test_the_order_of_instances_does_not_matter(self):
        for index in range(150):
            scene = random_scenes.scene(7, index)
            if isinstance(scene, dict) and scene.get("instances"):
                turned = {**scene, "instances": scene["instances"][::-1]}
                self.assertEqual(second_opinion.answer(turned), second_opinion.answer(scene))


class Comparison(unittest.TestCase):
    def test_an_answer_equals_itself(self):
        for index in range(150):
            line = test_decide.as_line(random_scenes.scene(8, index))
            answered = json.loads(json.dumps(second_opinion.answer_line(line)).replace("-Infinity", '"-inf"')
                                  .replace("Infinity", '"inf"'))
            self.assertIsNone(test_decide.difference(second_opinion.answer_line(line), answered))

    def test_a_wrong_answer_is_found(self):
        scene = {"instances": [{"id": "i1"}, {"id": "i2", "status": {"schedulable": False}}],
                 "request": {"scheduling_mode": "neutral"}}
        mine = second_opinion.answer(scene)
        for change in (lambda a: a.update(outcome="refused"), lambda a: a.update(http_status=429),
                       lambda a: a["placement"][0].update(instance="i2"), lambda a: a["stages"].pop(),
                       lambda a: a["stages"][0].update(winner="i2"), lambda a: a["stages"][0]["considered"].pop(),
                       lambda a: a["stages"][0]["dropped"].pop(), lambda a: a["stages"][0].update(fallback=True),
                       lambda a: a["stages"][0]["metrics"]["i1"].update(all_prefills_tokens_num=1)):
            theirs = copy.deepcopy(mine)
            change(theirs)
            self.assertIsNotNone(test_decide.difference(mine, theirs))

    def test_smaller_scenes_come_largest_member_first(self):
        self.assertEqual(list(test_decide.without_one({"a": 1, "b": [1, 2]})),
                         [{"a": 1}, {"b": [1, 2]}, {"a": 1, "b": [2]}, {"a": 1, "b": [1]}])


if __name__ == "__main__":
    unittest.main()
