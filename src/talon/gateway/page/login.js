// Who is here: a cookie that this script cannot read. A key is shown to the gateway once, for a session, and kept nowhere.

const $ = (id) => document.getElementById(id);

// What changes something says that it comes from this page: no form of another site can send the header.
export const OURS = { "Talon-Csrf": "1" };

let entered = null; // called once somebody is in

export async function whoIsHere(then) {
  entered = then;
  const access = await (await fetch("/v1/auth")).json();
  const inside = !access.asked || access.me !== null;
  $("login").hidden = inside;
  $("columns").hidden = !inside;
  $("where").hidden = !inside;
  $("logout").hidden = !access.me;
  $("me").textContent = access.me?.id ?? "";
  $("login-oidc").hidden = !access.login;
  $("login-oidc").href = "/v1/auth/login?back=" + encodeURIComponent(location.pathname);
  if (!inside) $("key").focus();
  return inside;
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  $("key").value = "";
  // Whoever cannot write it into a header has no key.
  const headers = { ...OURS, Authorization: `Bearer ${/^[\x21-\x7e]*$/.test(key) ? key : ""}` };
  const answer = await fetch("/v1/auth/session", { method: "POST", headers });
  $("login-problem").textContent = answer.ok ? "" : (await answer.json().catch(() => null))?.detail ?? "That did not work.";
  if (answer.ok && (await whoIsHere(entered))) await entered();
});

$("logout").addEventListener("click", async () => {
  await fetch("/v1/auth/session", { method: "DELETE", headers: OURS });
  location.reload();
});
