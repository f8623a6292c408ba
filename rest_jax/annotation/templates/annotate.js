'use strict';
(() => {
  const find = (id) => document.getElementById(id);
  const headers = { 'content-type': 'application/json' };
  const post = (path, body) =>
    fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });

  if (document.body.dataset.page === 'sign-in') {
    find('sign-in').addEventListener('submit', async (event) => {
      event.preventDefault();
      let message = 'The server does not answer. Is it running?';
      try {
        const answer = await post('/api/sign_in', { rater: find('name').value });
        if (answer.ok) {
          location.reload();
          return;
        }
        message = (await answer.json()).error;
      } catch (error) {
        console.error(error);
      }
      find('error').textContent = message;
      find('error').hidden = false;
      find('name').focus();
    });
    return;
  }

  const { rater, study, view } = document.body.dataset;
  const OUTBOX = `${study}/${rater}/outbox`;
  const RETRY_MS = 1000;
  let state = null; // what /api/task said last
  let current = 0; // the candidate that digits go to
  let sending = null; // the promise of the outbox being emptied
  let moving = false; // a task is being fetched

  // A submission waits here until the server has it: neither a reload nor a server that
  // is away loses it, and since its id stays the same, sending it twice changes nothing.
  const outbox = {
    read: () => JSON.parse(localStorage.getItem(OUTBOX) || '[]'),
    write: (items) => localStorage.setItem(OUTBOX, JSON.stringify(items)),
    add: (item) => outbox.write([...outbox.read(), item]),
    // By id, not by place: another window may be emptying it too.
    remove: (id) =>
      outbox.write(outbox.read().filter(({ body }) => body.submission_id !== id)),
  };

  // crypto.randomUUID exists on secure origins alone.
  const newId = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
      byte.toString(16).padStart(2, '0'),
    ).join('');

  const say = (text) => { find('status').textContent = text; };
  const alarm = (text) => {
    find('alert').textContent = text;
    find('alert').hidden = text === '';
  };
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  const empty = async () => {
    let last = null;
    for (let items = outbox.read(); items.length; items = outbox.read()) {
      const { path, body } = items[0];
      let answer;
      try {
        answer = await post(path, body);
        if (answer.status >= 500) throw new Error(`status ${answer.status}`);
      } catch (error) {
        console.warn(error);
        const count = items.length === 1 ? '1 rating' : `${items.length} entries`;
        alarm(`The server does not answer. ${count} kept here, and sent when it does.`);
        await pause(RETRY_MS);
        continue;
      }
      const said = await answer.json();
      if (!answer.ok) {
        // 403: the token is gone; keep what waits. Else the server will never take it.
        if (answer.status !== 403) outbox.remove(body.submission_id);
        alarm(`Not saved: ${said.error}`);
        throw new Error(said.error);
      }
      outbox.remove(body.submission_id);
      last = said;
      alarm('');
    }
    return last;
  };
  const flush = () => {
    if (!sending) sending = empty().finally(() => { sending = null; });
    return sending;
  };
  const submit = (path, body) => {
    outbox.add({ path, body: { submission_id: newId(), rater, ...body } });
    return flush();
  };
  const quietly = (promise) => promise.catch((error) => console.warn(error));

  const letter = (place) => String.fromCharCode(65 + (place % 26));
  const cards = () => Array.from(find('candidates').children);

  const showRatings = () => {
    state.task.candidates.forEach(({ rating }, place) => {
      const card = cards()[place];
      card.classList.toggle('rated', rating !== null);
      for (const button of card.querySelectorAll('button')) {
        const pressed = Number(button.dataset.rating) === rating;
        button.setAttribute('aria-pressed', String(pressed));
      }
    });
  };
  const choose = (place, focus = true) => {
    current = place;
    cards().forEach((card, index) => card.classList.toggle('current', index === place));
    if (focus && cards()[place]) cards()[place].focus({ preventScroll: false });
  };
  const isOpen = ({ rating }) => rating === null;

  const card = ({ text }, place, { length }) => {
    const made = find('candidate').content.firstElementChild.cloneNode(true);
    const name = length === 1 ? 'Candidate' : `Candidate ${letter(place)}`;
    made.setAttribute('aria-label', `${name}: ${text || 'empty'}`);
    made.querySelector('.letter').textContent = length === 1 ? '' : letter(place);
    const shown = made.querySelector('.text');
    shown.textContent = text || 'The candidate is empty.';
    shown.classList.toggle('nothing', text === '');
    made.querySelector('.ratings').setAttribute('aria-label', `Rating of ${name}`);
    for (const button of made.querySelectorAll('button')) {
      button.addEventListener('click', () => rate(place, Number(button.dataset.rating)));
    }
    made.addEventListener('focusin', () => choose(place, false));
    return made;
  };

  const show = (fetched, candidateId = null) => {
    state = fetched;
    const { done, total, place, task } = state;
    find('progress').max = Math.max(total, 1);
    find('progress').value = done;
    const unit = view === 'single' ? 'candidates' : 'sources';
    find('progress-text').textContent = `${done} of ${total} ${unit} rated`;
    find('work').hidden = task === null;
    find('finished').hidden = task !== null;
    find('scale').hidden = task === null;
    find('question').hidden = task === null;
    find('previous').disabled = place === 0;
    find('next').disabled = task === null;
    if (task === null) {
      find('candidates').replaceChildren();
      find('finished-title').textContent =
        done === total ? 'All rated. Thank you.' : `${total - done} left to rate.`;
      find('finished-title').focus();
      return;
    }
    find('source').textContent = task.source;
    find('reference-box').hidden = task.reference === null;
    find('reference').textContent = task.reference || '';
    find('candidates').replaceChildren(...task.candidates.map(card));
    find('candidates').classList.toggle('one', task.candidates.length === 1);
    showRatings();
    const wanted = task.candidates.findIndex(({ id }) => id === candidateId);
    const open = task.candidates.findIndex(isOpen);
    window.scrollTo(0, 0);
    choose(Math.max(wanted >= 0 ? wanted : open, 0));
  };

  const load = async (place = null, candidateId = null) => {
    if (moving) return;
    moving = true;
    try {
      const sent = await flush().then(() => true, () => false);
      for (;;) {
        let answer;
        try {
          answer = await fetch(place === null ? '/api/task' : `/api/task?place=${place}`);
          if (answer.status >= 500) throw new Error(`status ${answer.status}`);
        } catch (error) {
          console.warn(error);
          alarm('The server does not answer. Trying again.');
          await pause(RETRY_MS);
          continue;
        }
        if (answer.status === 401) {
          location.reload();
          return;
        }
        const said = await answer.json();
        if (!answer.ok) throw new Error(said.error);
        if (sent) alarm(''); // else it says what was not saved
        show(said, candidateId);
        return;
      }
    } catch (error) {
      alarm(error.message);
    } finally {
      moving = false;
    }
  };

  // The rating is shown at once; the server learns of it behind that.
  async function rate(place, rating) {
    if (!state || !state.task || moving) return;
    const candidate = state.task.candidates[place];
    if (!candidate) return;
    const unchanged = candidate.rating === rating;
    candidate.rating = rating;
    showRatings();
    say(`${letter(place)} rated ${rating}`);
    const saved = unchanged
      ? flush()
      : submit('/api/rate', { candidate_id: candidate.id, rating });
    const { candidates } = state.task;
    const open = candidates.findIndex(isOpen);
    const here = state.place;
    choose(open >= 0 ? open : place);
    try {
      await saved;
    } catch (error) {
      console.warn(error);
      const refusal = find('alert').textContent;
      await load(here, candidate.id); // what the server knows
      alarm(refusal);
      return;
    }
    if (candidates.length === 1 && state.place === here) await load(here + 1);
  }

  const next = () => {
    if (!state || !state.task) return quietly(load());
    const { candidates } = state.task;
    const open = candidates.findIndex(isOpen);
    if (open >= 0) {
      choose(open);
      const name = candidates.length === 1 ? 'The candidate' : `Candidate ${letter(open)}`;
      alarm(`${name} is not rated yet. → leaves the source for later.`);
      return null;
    }
    return load(state.place + 1);
  };
  const step = (by) => {
    if (!state) return null;
    const place = state.place + by;
    return place < 0 || place > state.total ? null : load(place);
  };
  const undo = async () => {
    if (moving) return;
    try {
      await flush();
      const said = await submit('/api/undo', {});
      if (!said || said.place === null) {
        say('There is nothing to undo.');
        return;
      }
      await load(said.place, said.candidate_id);
      say('Undone.');
    } catch (error) {
      console.warn(error);
    }
  };
  const move = (by) => {
    const { length } = cards();
    if (length) choose((current + by + length) % length);
  };

  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const onButton = event.target.closest && event.target.closest('button, summary');
    const actions = {
      ArrowDown: () => move(1), j: () => move(1),
      ArrowUp: () => move(-1), k: () => move(-1),
      ArrowRight: () => step(1), ArrowLeft: () => step(-1),
      u: undo, U: undo, Backspace: undo,
    };
    if (!onButton) actions.Enter = next;
    if (/^[0-6]$/.test(event.key)) {
      actions[event.key] = () => rate(current, Number(event.key));
    }
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    if (event.repeat && !event.key.startsWith('Arrow')) return; // a key held down
    action();
  });
  find('next').addEventListener('click', next);
  find('previous').addEventListener('click', () => step(-1));
  find('undo').addEventListener('click', undo);
  find('sign-out').addEventListener('click', async () => {
    await quietly(flush());
    await post('/api/sign_out', {});
    location.reload();
  });
  if (window.matchMedia('(max-width: 720px)').matches) {
    find('scale').open = false;
  }
  load();
})();
