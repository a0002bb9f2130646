"""Pictures posted and sounds uploaded: profiles in those slices, and lists that prefer what a user is about."""

import os
import random
import ssl
import threading
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import numpy as np
import pytest
import trustme

from penchant.demo.pictures import picture
from penchant.profile.identity import Identity
from penchant.streams.codec import encode
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.events import Item, Media, MediaKind, MediaUpload, Post
from penchant.streams.records import Output
from penchant.streams.topics import Topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

COUNT = 10


class Corpus(NamedTuple):
    """Labelled files, shared out to users who have one class each.

    Attributes:
        each: files per user.
        best: how many times better than chance the lists must be; about two thirds of what was measured.
    """

    folder: str
    kind: MediaKind
    each: int
    best: float


PICTURES = Corpus("cifar10-sample", MediaKind.IMAGE, 5, 2.0)
SOUNDS = Corpus("esc10", MediaKind.AUDIO, 4, 4.0)


class Shared(NamedTuple):
    """What was shared.

    Attributes:
        classes: by item.
        tastes: each user's one class.
        own: each user's items.
    """

    classes: dict[str, str]
    tastes: dict[str, str]
    own: dict[str, set[str]]


class Done(NamedTuple):
    """What came of it.

    Attributes:
        shared: by kind.
        niceness: of the worker of each lane.
    """

    shared: dict[MediaKind, Shared]
    niceness: dict[str, int]


def share(stage, folder, corpus):
    """Every file of a corpus as a post or an upload without any words, by users of one class each."""
    identity = Identity(stage.settings.id_key.get_secret_value())
    shared = Shared({}, {}, defaultdict(set))
    outputs = []
    for path in sorted((folder / corpus.folder).glob("*/*.*")):
        label = path.parent.name
        number = list(shared.classes.values()).count(label)
        user = f"{corpus.folder}-{label}-{number // corpus.each}"
        event, data = f"{corpus.kind}-{number}", path.read_bytes()
        if corpus.kind is MediaKind.IMAGE:
            topic = Topic.POSTS
            value = encode(Post(event_id=event, user_id=user, media=(Media(kind=corpus.kind, data=data),)))
        else:
            topic = Topic.MEDIA_UPLOADS
            value = encode(MediaUpload(event_id=event, user_id=user, kind=corpus.kind, data=data))
        outputs.append(Output(topic=stage.topic(topic), key=user.encode(), value=value))
        item = identity.own_item(user, event)
        shared.classes[item] = label
        shared.tastes[user] = label
        shared.own[user].add(item)
    stage.send(outputs)
    return shared


@pytest.fixture(scope="module")
def stage(kafka, make_stage):
    """A stage whose users have shared media, once a worker has seen them."""
    with make_stage(kafka) as found:
        yield found


@pytest.fixture(scope="module")
def done(stage, shared_data):
    """Both corpora, shared and worked off; no worker runs any more.

    All items are there before the first list is made, so that what the lists contain does not depend on timing.
    """
    done = Done({corpus.kind: share(stage, shared_data, corpus) for corpus in (PICTURES, SOUNDS)}, {})
    for lane in ("content", "interest"):
        with stage.worker(lane) as worker:
            stage.await_settled(worker, lane)
            done.niceness[lane] = os.getpriority(os.PRIO_PROCESS, worker.process.pid)
            assert worker.stop() == 0
    return done


def test_who_only_embeds_gives_way(done):
    """A worker of the content lane alone leaves the processor to whoever else needs it; one of another does not."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert done.niceness["interest"] == usual
    assert done.niceness["content"] > usual


@pytest.mark.parametrize("corpus", [PICTURES, SOUNDS], ids=lambda corpus: corpus.folder)
def test_lists_prefer_the_class_of_what_a_user_shared(stage, done, measured, corpus):
    """Items of a user's own class are recommended well above chance, and a user's own items never."""
    classes, tastes, own = done.shared[corpus.kind]
    lists = stage.lists()
    hits, chances = [], []
    for user, items in own.items():
        recommended = [one.item_id for one in lists[user].items]
        assert not items & set(recommended)
        assert len(recommended) == COUNT
        hits.append(np.mean([classes.get(item) == tastes[user] for item in recommended]))
        others = [one for item, one in classes.items() if item not in items]
        chances.append(np.mean([one == tastes[user] for one in others]))
    precision, chance = float(np.mean(hits)), float(np.mean(chances))
    measured(
        f"{corpus.folder}: precision@{COUNT} {precision:.3f} (chance {chance:.3f}), "
        f"{len(own)} users who shared {corpus.each} files of one class, {len(classes)} items"
    )
    assert precision > corpus.best * chance


@pytest.mark.parametrize("corpus", [PICTURES, SOUNDS], ids=lambda corpus: corpus.folder)
def test_profiles_change_in_the_slice_of_what_was_shared(stage, done, corpus):
    """Each file is an item of its modality, a signal of its author, and moves the author's interest there alone."""
    classes, _, own = done.shared[corpus.kind]
    snapshot = stage.snapshot(classes)
    assert {item: found.modalities for item, found in snapshot.items.items()} == dict.fromkeys(classes, (corpus.kind,))
    others = [kind for kind in ("text", *MediaKind) if kind != corpus.kind]
    for user, items in own.items():
        profile = snapshot.profiles[user]
        assert {signal.item_id for signal in profile.state.strong} == items
        assert not profile.awaits
        for view in (profile.short, profile.long, profile.interest):
            slices = stage.slices(view)
            assert slices[corpus.kind] > 0
            assert not any(slices[other] for other in others)


@contextmanager
def serving(content, folder):
    """A host by https on loopback, which has one picture; gives its address, and the file to trust it by."""

    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/picture" else 404)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Says nothing."""

    authority, trusted = trustme.CA(), folder / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"localhost:{server.server_port}", trusted
        finally:
            server.shutdown()
            thread.join()


def test_an_upload_may_say_where_its_picture_is(kafka, make_stage, tmp_path, monkeypatch):
    """A worker fetches it by https from a host that is allowed, and lists follow; any other is a dead letter."""
    rng = random.Random(5)
    with serving(picture("sea", rng), tmp_path) as (place, trusted):
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        encoders = {"media_hosts": [place], "media_networks": ["127.0.0.0/8"]}
        with make_stage(kafka, encoders=encoders) as stage:
            for number in range(3):
                shown = Media(kind=MediaKind.IMAGE, data=picture("sea", rng))
                item = Item(item_id=f"film-{number}", title=f"Film {number}", media=(shown,))
                stage.send([Output(topic=stage.topic(Topic.ITEMS), key=item.item_id.encode(), value=encode(item))])
            with stage.worker() as worker:
                stage.await_settled(worker, "content")  # else the first list may find nothing yet
                for event, uri in {
                    "allowed": f"https://{place}/picture",
                    "elsewhere": "https://media.test/picture",
                    "nothing": f"https://{place}/no-picture",
                }.items():
                    upload = MediaUpload(event_id=event, user_id="ann", kind=MediaKind.IMAGE, uri=uri)
                    stage.send([Output(topic=stage.topic(Topic.MEDIA_UPLOADS), key=b"ann", value=encode(upload))])
                stage.await_settled(worker)
                worker.await_that(lambda: "ann" in stage.lists(), "the list has come")
                assert worker.stop() == 0
            listed = {one.item_id for one in stage.lists()["ann"].items}
            assert listed
            assert listed <= {f"film-{number}" for number in range(3)}
            letters = [DeadLetter.read(record) for record in stage.read(Topic.DEAD_LETTERS)]
            assert {letter.reason for letter in letters} == {"image-not-allowed", "image-not-found"}
            identity = Identity(stage.settings.id_key.get_secret_value())
            own = {event: identity.own_item("ann", event) for event in ("allowed", "elsewhere", "nothing")}
            snapshot = stage.snapshot(own.values())
            assert snapshot.items[own["allowed"]].modalities == (MediaKind.IMAGE,)
            assert stage.slices(snapshot.profiles["ann"].interest)[MediaKind.IMAGE] > 0
            for event in ("elsewhere", "nothing"):
                assert snapshot.vectors[own[event]] is None
