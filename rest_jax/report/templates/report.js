'use strict';
(() => {
  const controls = document.getElementById('controls');
  if (!controls) return;
  const find = (id) => document.getElementById(id);
  const list = find('groups');
  const groups = Array.from(list.querySelectorAll('.group'));
  const texts = new Map(groups.map((g) => [g, g.textContent.toLowerCase()]));

  // '-reward' sorts data-reward downwards; what was not measured comes last.
  const comparison = (order) => {
    const falls = order.startsWith('-');
    const key = falls ? order.slice(1) : order;
    return (a, b) => {
      const [x, y] = [a.dataset[key], b.dataset[key]];
      const tie = Number(a.dataset.order) - Number(b.dataset.order);
      if (x === y) return tie;
      if (x === '') return 1;
      if (y === '') return -1;
      if (key === 'source') return x < y ? -1 : 1;
      return (falls ? y - x : x - y) || tie;
    };
  };

  const show = () => {
    const policy = find('policy').value;
    const words = find('search').value.trim().toLowerCase();
    let shown = 0;
    for (const group of groups) {
      const wrong = policy !== '' && group.dataset.policy !== policy;
      group.hidden = wrong || !texts.get(group).includes(words);
      shown += group.hidden ? 0 : 1;
    }
    find('count').textContent = `${shown} of ${groups.length} groups`;
    find('nothing').hidden = shown > 0;
  };
  const orderGroups = () => {
    list.append(...groups.slice().sort(comparison(find('group-order').value)));
  };
  const orderCandidates = () => {
    const compare = comparison(find('candidate-order').value);
    for (const body of list.querySelectorAll('tbody')) {
      body.append(...Array.from(body.rows).sort(compare));
    }
  };

  controls.hidden = false;
  controls.addEventListener('submit', (event) => event.preventDefault());
  find('policy').addEventListener('change', show);
  find('search').addEventListener('input', show);
  find('group-order').addEventListener('change', orderGroups);
  find('candidate-order').addEventListener('change', orderCandidates);
  show();
})();
