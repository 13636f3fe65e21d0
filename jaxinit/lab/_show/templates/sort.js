// Sorts the table by a column: numbers as numbers, what is missing last.
const table = document.getElementById("table");
const heads = [...table.tHead.rows[0].cells];
const body = table.tBodies[0];
const original = [...body.rows];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.key;
  const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : Number(a) < Number(b) ? -1 : Number(a) > Number(b) ? 1 : 0;
  body.append(...[...original].sort((one, two) => {
    const [a, b] = [key(one), key(two)];
    if (a === "" || b === "") return (a === "") - (b === "");
    return ascending ? compare(a, b) : compare(b, a);
  }));
}));
