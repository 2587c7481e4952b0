"""The official OpenAI client and the load tools' requests, against a running mondai.

Usage: MONDAI_URL=http://127.0.0.1:8080 python tests/clients/test_openai.py

The server wants `--slots 2 --max-queued 2`, so that a handful of requests fills its queue.
"""

import json
import os
import threading
import time
import typing
import unittest

import httpx2
import openai
import pydantic

URL = os.environ["MONDAI_URL"]
# What two slots and a queue of two cannot hold.
TOO_MANY = 8
QUESTION = [{"role": "user", "content": "Name three planets."}]

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=300)
MODEL = client.models.list().data[0].id


def complete(**options):
    """A greedy reply, unless `options` say otherwise."""
    options = {"model": MODEL, "messages": QUESTION, "max_completion_tokens": 24, "temperature": 0} | options
    return client.chat.completions.create(**options)


def text_of(completion):
    return completion.choices[0].message.content


class Models(unittest.TestCase):
    def test_the_model_is_listed_and_retrieved(self):
        model = client.models.retrieve(MODEL)
        self.assertEqual((model.id, model.object), (MODEL, "model"))
        self.assertEqual(model, client.models.list().data[0])

    def test_an_unknown_model_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            client.models.retrieve("no-such-model")
        self.assertEqual(caught.exception.code, "model_not_found")


class Completions(unittest.TestCase):
    def test_a_whole_reply(self):
        completion = complete()
        choice = completion.choices[0]
        self.assertTrue(completion.id.startswith("chatcmpl-"))
        self.assertEqual((completion.object, completion.model), ("chat.completion", MODEL))
        self.assertEqual((choice.index, choice.message.role), (0, "assistant"))
        self.assertTrue(choice.message.content.strip())
        usage = completion.usage
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertIn(choice.finish_reason, ("stop", "length"))
        self.assertEqual(choice.finish_reason == "length", usage.completion_tokens == 24)

    def test_a_streamed_reply_is_the_same_text(self):
        chunks = list(complete(stream=True, stream_options={"include_usage": True}))
        *choices, last = chunks
        self.assertEqual(len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}), 1)
        self.assertTrue(all(len(chunk.choices) == 1 and chunk.usage is None for chunk in choices))
        self.assertEqual(choices[0].choices[0].delta.role, "assistant")
        reasons = [chunk.choices[0].finish_reason for chunk in choices]
        self.assertTrue(all(reason is None for reason in reasons[:-1]))

        whole = complete()
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in choices), text_of(whole))
        self.assertEqual(reasons[-1], whole.choices[0].finish_reason)
        self.assertEqual(last.choices, [])
        self.assertEqual(last.usage.prompt_tokens, whole.usage.prompt_tokens)
        self.assertEqual(last.usage.completion_tokens, whole.usage.completion_tokens)

    def test_the_stream_helper_reads_it_to_the_end(self):
        # It takes a reply cut by its budget for an error, so this one ends at a word.
        text = text_of(complete())
        word = text.split()[3]
        with client.chat.completions.stream(
            model=MODEL, messages=QUESTION, max_completion_tokens=24, temperature=0, stop=word
        ) as stream:
            final = stream.get_final_completion()
        self.assertEqual(text_of(final), text[: text.index(word)])

    def test_a_reply_stops_before_the_stop_string(self):
        text = text_of(complete())
        word = text.split()[3]
        for stop in (word, [word, "never written"]):
            stopped = complete(stop=stop)
            self.assertEqual(text_of(stopped), text[: text.index(word)])
            self.assertEqual(stopped.choices[0].finish_reason, "stop")
        self.assertEqual(text_of(complete(stop=None)), text)

    def test_logprobs_are_those_of_the_text(self):
        completion = complete(logprobs=True, top_logprobs=3)
        tokens = completion.choices[0].logprobs.content
        # The token that ends a reply has no text, and may be left out.
        self.assertIn(completion.usage.completion_tokens - len(tokens), (0, 1))
        self.assertEqual(b"".join(bytes(token.bytes) for token in tokens).decode(), text_of(completion))
        for token in tokens:
            top = [other.logprob for other in token.top_logprobs]
            self.assertEqual((len(top), top), (3, sorted(top, reverse=True)))
            self.assertLessEqual(top[0], 0)
            self.assertEqual((token.token, token.logprob), (token.top_logprobs[0].token, top[0]))

    def test_a_seed_repeats_the_text(self):
        first, again, other = (
            text_of(complete(temperature=1, seed=seed, max_completion_tokens=32)) for seed in (7, 7, 8)
        )
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)


class Planet(pydantic.BaseModel):
    kind: typing.Literal["rocky", "gas"]
    name: str
    moons: int


class StructuredOutput(unittest.TestCase):
    def test_a_schema_is_kept(self):
        for seed in range(3):
            completion = client.chat.completions.parse(
                model=MODEL,
                messages=[{"role": "user", "content": "Describe the planet Mars as JSON."}],
                response_format=Planet,
                max_completion_tokens=64,
                temperature=1,
                seed=seed,
            )
            self.assertEqual(completion.choices[0].finish_reason, "stop")
            self.assertIsInstance(completion.choices[0].message.parsed, Planet)

    def test_a_json_object_is_one(self):
        completion = complete(response_format={"type": "json_object"}, max_completion_tokens=48)
        self.assertIsInstance(json.loads(text_of(completion)), dict)

    def test_a_schema_that_cannot_be_kept_is_refused(self):
        schema = {"name": "word", "schema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}
        with self.assertRaises(openai.BadRequestError) as caught:
            complete(response_format={"type": "json_schema", "json_schema": schema})
        self.assertTrue(caught.exception.param.startswith("response_format"), caught.exception.param)


class Errors(unittest.TestCase):
    def check(self, error, param, **options):
        with self.assertRaises(error) as caught:
            complete(**options)
        self.assertEqual(caught.exception.param, param)
        self.assertTrue(caught.exception.message and caught.exception.type and caught.exception.request_id)

    def test_each_names_its_field(self):
        self.check(openai.NotFoundError, "model", model="no-such-model")
        self.check(openai.BadRequestError, "messages", messages=[])
        self.check(openai.BadRequestError, "temperature", temperature=9)
        self.check(openai.BadRequestError, "top_p", top_p=-1)
        self.check(openai.BadRequestError, "max_completion_tokens", max_completion_tokens=0)
        endless = [{"role": "user", "content": "word " * 20_000}]
        self.check(openai.BadRequestError, "messages", messages=endless)

    def test_a_full_queue_says_when_to_come_back(self):
        """Every request either is answered or is told when to try again, and some are told."""
        outcomes = []
        together = threading.Barrier(TOO_MANY)

        def ask():
            together.wait()
            try:
                outcomes.append(complete(max_completion_tokens=48))
            except Exception as error:  # judged below, on the test's own thread
                outcomes.append(error)

        threads = [threading.Thread(target=ask) for _ in range(TOO_MANY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        self.assertIn(len(refused), range(1, TOO_MANY - 3), refused)
        for error in refused:
            self.assertIsInstance(error, openai.RateLimitError)
            self.assertEqual(error.code, "queue_full")
            milliseconds = int(error.response.headers["retry-after-ms"])
            self.assertIn(milliseconds, range(1, 120_001))
            self.assertEqual(int(error.response.headers["retry-after"]), -(-milliseconds // 1000))
        answered = {text_of(outcome) for outcome in outcomes if outcome not in refused}
        self.assertEqual(len(answered), 1, "the same request has the same reply beside others")


class Cancellation(unittest.TestCase):
    def test_a_closed_stream_frees_its_slot(self):
        with complete(stream=True, max_completion_tokens=2000, extra_body={"ignore_eos": True}) as stream:
            for _, chunk in zip(range(3), stream):
                self.assertIsNone(chunk.choices[0].finish_reason)
        deadline = time.monotonic() + 20
        while (running := gauge("vllm:num_requests_running")) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(running, 0)


def gauge(name):
    """A metric's value, summed over its labels."""
    lines = httpx2.get(f"{URL}/metrics").text.splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
    assert values, f"/metrics has no {name}"
    return sum(values)


class LoadTools(unittest.TestCase):
    """Requests as the tools send them, and their answers read as they read them."""

    def stream(self, body, **headers):
        """The chunks of a streamed reply. Tools split on LF LF alone and want [DONE] at the end."""
        response = httpx2.post(f"{URL}/v1/chat/completions", json=body, headers=headers, timeout=300)
        self.assertEqual(response.status_code, 200, response.text)
        self.assertEqual(response.headers["content-type"].split(";")[0], "text/event-stream")
        events = response.text.split("\n\n")
        self.assertEqual(events[-2:], ["data: [DONE]", ""])
        data = [event.removeprefix("data: ") for event in events[:-2] if not event.startswith(":")]
        return [json.loads(event) for event in data], response.headers

    def check_timing(self, chunks, tokens):
        """A tool takes the first token's time at the first choice and counts one gap for each later one."""
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        self.assertTrue(choices[0]["delta"]["content"], "the first chunk has the first token's text")
        contents = [choice for choice in choices if choice["delta"].get("content")]
        self.assertLessEqual(len(contents), tokens)
        # What was drafted rightly comes with the token before it.
        steps = tokens - chunks[-1]["usage"]["completion_tokens_details"]["accepted_tokens"]
        self.assertGreater(len(contents), steps // 2, "tokens come step by step")

    def test_vllm_bench(self):
        self.assertEqual(httpx2.get(f"{URL}/v1/models").json()["data"][0]["id"], MODEL)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Name three planets."}]}],
            "max_completion_tokens": 16,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
        }
        chunks, headers = self.stream(body, **{"x-request-id": "bench-0", "Authorization": "Bearer none"})
        self.assertEqual(headers["x-request-id"], "bench-0")
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 16)
        self.check_timing(chunks, 16)

    def test_guidellm(self):
        self.assertEqual(httpx2.get(f"{URL}/health").status_code, 200)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Name three planets."}]}],
            "max_completion_tokens": 16,
            "max_tokens": 16,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "stop": None,
            "ignore_eos": True,
        }
        chunks, _ = self.stream(body)
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], 16)
        self.check_timing(chunks, 16)

    def test_aiperf(self):
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Name three planets."}],
            "max_completion_tokens": 8,
            "stream": False,
        }
        response = httpx2.post(f"{URL}/v1/chat/completions", json=body, timeout=300)
        self.assertEqual(response.status_code, 200, response.text)
        self.assertLessEqual(response.json()["usage"]["completion_tokens"], 8)


if __name__ == "__main__":
    unittest.main(verbosity=2)
