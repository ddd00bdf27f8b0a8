"""Stands before an engine and breaks off one stream after so many events, as a network would."""

import asyncio
import threading

EVENT = b"data: {"


class CuttingProxies:
    """One for each of some URLs; `urls` are theirs. Of all streams the next one is cut, once `cut_next` is called."""

    def __init__(self, urls):
        self.cuts, self.events_left = 0, None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.servers = [self._run(self._listen(url.removeprefix("http://").split(":"))) for url in urls]
        self.urls = ["http://127.0.0.1:%d" % each.sockets[0].getsockname()[1] for each in self.servers]

    def cut_next(self, events):
        """Whoever passes that many events first is cut before the next one."""
        self.events_left = events

    def close(self):
        for each in self.servers:
            self.loop.call_soon_threadsafe(each.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    async def _listen(self, engine):
        return await asyncio.start_server(lambda *client: self._serve(engine, *client), "127.0.0.1", 0)

    async def _serve(self, engine, reader, writer):
        try:
            engine_reader, engine_writer = await asyncio.open_connection(*engine)
        except OSError:
            return writer.close()
        upward = asyncio.create_task(self._pass_on(reader, engine_writer))
        try:
            await self._pass_events(engine_reader, writer)
        except ConnectionError:
            pass
        upward.cancel()
        writer.close()
        engine_writer.close()

    async def _pass_on(self, reader, writer):
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def _pass_events(self, reader, writer):
        """Replies; returns where one is to be cut."""
        while data := await reader.read(1 << 16):
            events = data.count(EVENT)
            if self.events_left is not None and events > self.events_left:
                at = -1
                for _ in range(self.events_left + 1):
                    at = data.index(EVENT, at + 1)
                writer.write(data[:at])
                await writer.drain()
                self.events_left = None
                self.cuts += 1
                return
            if self.events_left is not None:
                self.events_left -= events
            writer.write(data)
            await writer.drain()
