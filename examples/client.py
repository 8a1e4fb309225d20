"""Hand in one answer and read its grade. First: cinnabar assignment create examples/networks-quiz.yaml"""

import asyncio
import os

from rich import print

from cinnabar_client import Client, answers_to, render

ANSWERS = {"transport": "tcp,quic", "delay": "5 ms", "port": "https", "handshake": "Both sides must agree."}


async def main() -> None:
    async with Client(os.environ["CINNABAR_ADDRESS"], token=os.environ["CINNABAR_TOKEN"]) as client:
        quiz = await client.get_assignment("courses/networks-101/assignments/quiz")
        accepted = await client.submit(quiz.name, answers_to(quiz, ANSWERS), author="ada")
        async for state in client.watch(accepted.name):
            print(render.submission(state, quiz))


if __name__ == "__main__":
    asyncio.run(main())
