"use strict";
// Names come from files of strangers: they are set as text, never as markup.

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

// A face, [height, width] pixels, under a grid of cells.
function face(image, size, grid, name) {
  const box = make("div", "face");
  if (size) box.style.aspectRatio = `${size[1]} / ${size[0]}`;
  if (image) {
    const picture = make("img");
    picture.src = image;
    picture.alt = name;
    box.append(picture);
  } else {
    box.append(make("p", "missing", "photo missing"));
  }
  const cells = make("div", "cells");
  cells.style.gridTemplateColumns = `repeat(${grid[1]}, 1fr)`;
  cells.style.gridTemplateRows = `repeat(${grid[0]}, 1fr)`;
  for (let i = 0; i < grid[0] * grid[1]; i++) cells.append(make("span"));
  box.append(cells);
  return box;
}

const cellsOf = (box) => box.querySelector(".cells").children;

function shade(box, levels) {
  [...cellsOf(box)].forEach((cell, i) => {
    cell.style.backgroundColor =
      levels ? `rgba(255, 196, 0, ${(0.85 * levels[i]) / 255})` : "";
  });
}

// Eq. 3.9: at each place of the query the candidate's patch that most weight goes to,
// the darker the less of it.
function reconstruction(candidate, size, grid, other) {
  const box = make("div", "face flow");
  box.style.aspectRatio = `${size[1]} / ${size[0]}`;
  const cells = make("div", "cells");
  cells.style.gridTemplateColumns = `repeat(${grid[1]}, 1fr)`;
  cells.style.gridTemplateRows = `repeat(${grid[0]}, 1fr)`;
  const count = other[0] * other[1];
  const largest = [];
  for (let i = 0; i < grid[0] * grid[1]; i++) {
    const row = candidate.flow.slice(i * count, (i + 1) * count);
    largest.push(row.indexOf(Math.max(...row)));
  }
  const levels = largest.map((j, i) => candidate.flow[i * count + j]);
  const low = Math.min(...levels);
  const span = Math.max(...levels) - low;
  largest.forEach((j, i) => {
    const cell = make("span");
    const row = Math.floor(j / other[1]);
    const column = j % other[1];
    cell.style.backgroundImage = `url(${candidate.image})`;
    cell.style.backgroundSize = `${100 * other[1]}% ${100 * other[0]}%`;
    const share = (k, n) => (n > 1 ? (100 * k) / (n - 1) : 0);
    cell.style.backgroundPosition =
      `${share(column, other[1])}% ${share(row, other[0])}%`;
    cell.style.filter = `brightness(${span ? 0.15 + (0.85 * (levels[i] - low)) / span : 1})`;
    cells.append(cell);
  });
  box.append(cells);
  return box;
}

function moved(candidate, rank) {
  if (candidate.firstRank === null || candidate.firstRank === rank) return `${rank}`;
  return `${rank} (was ${candidate.firstRank})`;
}

function section(query) {
  const part = make("section");
  part.append(make("h2", "", query.name));
  if (query.note) part.append(make("p", "note", query.note));
  const line = make("div", "line");
  part.append(line);

  const own = make("figure");
  const asked = face(query.image, query.size, query.grid, query.name);
  asked.classList.add("query");
  own.append(asked, make("figcaption", "", "query"));
  line.append(own);
  if (!query.candidates.length) line.append(make("p", "empty", "No candidates."));

  const shown = query.candidates.map((candidate, index) => {
    const figure = make("figure");
    const box = face(
      candidate.image, candidate.size, query.candidateGrid, candidate.photo);
    figure.append(box);
    if (candidate.flow && candidate.image) {
      figure.append(reconstruction(
        candidate, query.size, query.grid, query.candidateGrid));
    }
    if (candidate.queryWeights) {
      const beside = face(query.image, query.size, query.grid, query.name);
      beside.classList.add("beside");
      shade(beside, candidate.queryWeights);
      figure.append(beside);
    }
    const caption = make("figcaption");
    caption.append(make("b", "", `${moved(candidate, index + 1)}. ${candidate.person}`));
    caption.append(make("div", "photo", candidate.photo));
    for (const [name, score] of candidate.scores) {
      caption.append(make("div", "score", `${name} ${score.toFixed(4)}`));
    }
    figure.append(caption);
    line.append(figure);
    return box;
  });

  const rest = () => {
    shade(asked, query.weights);
    shown.forEach((box, k) => shade(box, query.candidates[k].weights));
  };
  const fromQuery = (i) => {
    rest();
    cellsOf(asked)[i].classList.add("chosen");
    query.candidates.forEach((candidate, k) => {
      if (!candidate.flow) return;
      const count = query.candidateGrid[0] * query.candidateGrid[1];
      const row = candidate.flow.slice(i * count, (i + 1) * count);
      const peak = Math.max(...row, 1);
      shade(shown[k], row.map((level) => (255 * level) / peak));
    });
  };
  const fromCandidate = (k, j) => {
    const flow = query.candidates[k].flow;
    if (!flow) return;
    rest();
    cellsOf(shown[k])[j].classList.add("chosen");
    const count = query.candidateGrid[0] * query.candidateGrid[1];
    const column = [...cellsOf(asked)].map((_, i) => flow[i * count + j]);
    const peak = Math.max(...column, 1);
    shade(asked, column.map((level) => (255 * level) / peak));
  };

  // Hovering shows, a click keeps; another click on the same patch lets go.
  let kept = null;
  const clear = () => {
    part.querySelectorAll(".chosen").forEach((c) => c.classList.remove("chosen"));
  };
  const watch = (box, show) => {
    [...cellsOf(box)].forEach((cell, i) => {
      cell.addEventListener("mouseenter", () => {
        if (kept) return;
        clear();
        show(i);
      });
      cell.addEventListener("click", () => {
        const again = kept === cell;
        kept = again ? null : cell;
        clear();
        if (again) rest();
        else show(i);
        part.classList.toggle("kept", !again);
      });
    });
    box.addEventListener("mouseleave", () => {
      if (kept) return;
      clear();
      rest();
    });
  };
  watch(asked, fromQuery);
  shown.forEach((box, k) => watch(box, (j) => fromCandidate(k, j)));
  rest();
  return part;
}

const queries = JSON.parse(document.getElementById("data").textContent);
const main = document.querySelector("main");
if (!queries.length) main.append(make("p", "empty", "No queries."));
for (const query of queries) main.append(section(query));
