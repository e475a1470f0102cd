"use strict";

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.querySelector("main");
const place = `user study ${data.study} ${data.seed}`;

function load() {
  try {
    const saved = JSON.parse(localStorage.getItem(place));
    return Array.isArray(saved) ? saved : [];
  } catch {
    return []; // no storage, or something else lies there
  }
}

function store(answers) {
  try {
    localStorage.setItem(place, JSON.stringify(answers));
  } catch {
    // A browser without storage: the answers last until the page is closed.
  }
}

function sheet(pair) {
  const line = make("div", "pair");
  const picture = (source, name) => {
    const image = make("img");
    image.src = source;
    image.alt = name;
    line.append(image);
  };
  picture(pair.images[0], "first face");
  if (pair.explanation) picture(pair.explanation, "explanation");
  picture(pair.images[1], "second face");
  return line;
}

let answers = load();

function showExamples() {
  main.replaceChildren();
  main.append(
    make(
      "p", "",
      "Look at both faces and at what lies between them, which shows where they are " +
      "alike. First some examples with their solutions."));
  for (const pair of data.examples) {
    main.append(sheet(pair));
    main.append(make("p", "truth", pair.same ? "Same person: yes" : "Same person: no"));
  }
  const start = make("button", "start", "Start");
  start.addEventListener("click", showNext);
  main.append(start);
}

function showNext() {
  const done = new Set(answers.map((answer) => answer.number));
  const pair = data.pairs.find((candidate) => !done.has(candidate.number));
  main.replaceChildren();
  if (!pair) {
    showEnd();
    return;
  }
  main.append(
    make("p", "progress", `Pair ${answers.length + 1} of ${data.pairs.length}`));
  main.append(sheet(pair));
  const shown = Date.now();
  for (const [text, answer] of [["Yes", true], ["No", false]]) {
    const button = make("button", text.toLowerCase(), text);
    button.addEventListener("click", () => {
      answers.push({
        number: pair.number,
        method: pair.method,
        same: pair.same,
        answer,
        seconds: (Date.now() - shown) / 1000,
      });
      store(answers);
      showNext();
    });
    main.append(button);
  }
}

function showEnd() {
  main.append(make("p", "", "Thank you. Please save your answers."));
  const save = make("a", "save", "Save the answers");
  const saved = {study: data.study, seed: data.seed, answers};
  save.href = URL.createObjectURL(
    new Blob([JSON.stringify(saved, null, 1)], {type: "application/json"}));
  save.download = `answers-${data.seed}.json`;
  main.append(save);

  const table = make("table");
  const counts = new Map();
  for (const answer of answers) {
    const count = counts.get(answer.method) || [0, 0];
    count[0] += answer.answer === answer.same;
    count[1] += 1;
    counts.set(answer.method, count);
  }
  for (const [method, [right, count]] of counts) {
    const row = make("tr");
    row.append(make("td", "", method));
    row.append(make("td", "", `${right} of ${count}`));
    row.append(make("td", "", `${((100 * right) / count).toFixed(1)} %`));
    table.append(row);
  }
  main.append(table);
  const again = make("button", "again", "Forget the answers and begin again");
  again.addEventListener("click", () => {
    answers = [];
    store(answers);
    showExamples();
  });
  main.append(again);
}

if (answers.length) showNext();
else showExamples();
